"""Renaming a state dict by a table of patterns that can be read in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple, TypeVar

from torch import Tensor

Value = TypeVar('Value')


class Renamed(NamedTuple):
    """A state dict under our names.

    Args:
        state_dict: Our name -> tensor in our layout.
        sources: Our name -> published name.
        left_out: Published name -> why we have no such tensor.
    """

    state_dict: dict[str, Tensor]
    sources: dict[str, str]
    left_out: dict[str, str]


@cache
def _regex(pattern: str) -> re.Pattern:
    """Compile a pattern that matches the beginning of a name, up to a dot or its end."""
    parts = re.split(r'\{(\w+)\}', pattern)
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [rf'(?P<{name}>\d+)' for name in parts[1::2]]
    return re.compile(''.join(parts) + r'(?=\.|$)')


def _precision(pattern: str) -> tuple[int, int]:
    """Rank a pattern by its number of parts, then by how few numbers it leaves open."""
    return pattern.count('.'), -pattern.count('{')


def look_up(patterns: Mapping[str, Value], name: str) -> tuple[Value, re.Match] | None:
    """Find the value of the most precise pattern that a name begins with.

    Args:
        patterns: Pattern -> value. A pattern is made of whole parts of a dotted name; ``{i}`` in it
            stands for any number.
        name: Name of a tensor.
    """
    for pattern in sorted(patterns, key=_precision, reverse=True):
        match = _regex(pattern).match(name)
        if match:
            return patterns[pattern], match
    return None


def translate(table: Mapping[str, str], name: str) -> str | None:
    """Replace the beginning of a name by a table, numbers kept; None if the table lacks it."""
    found = look_up(table, name)
    if found is None:
        return None
    pattern, match = found
    return pattern.format(**match.groupdict()) + name[match.end() :]


def inverse(table: Mapping[str, str]) -> dict[str, str]:
    """Return the table from our names to the published ones."""
    return {ours: published for published, ours in table.items()}


def rename(
    published: Mapping[str, Tensor],
    table: Mapping[str, str],
    left_out: Mapping[str, str],
    method: str,
    changes: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> Renamed:
    """Rename every tensor of a state dict.

    Args:
        published: State dict with the published names; a leading ``module.`` is dropped.
        table: Published pattern -> our pattern, with the same numbers; see :func:`look_up`.
        left_out: Published pattern -> why we have no such tensor.
        method: Name of the network, for errors.
        changes: Published pattern -> what makes our layout of a tensor that is stored differently.

    Raises:
        ValueError: A name is in no table, or two tensors get the same name.
    """
    result = Renamed({}, {}, {})
    unknown = []
    for full_name, tensor in published.items():
        name = full_name.removeprefix('module.')
        reason = look_up(left_out, name)
        if reason is not None:
            result.left_out[full_name] = reason[0]
            continue
        ours = translate(table, name)
        if ours is None or not isinstance(tensor, Tensor):
            unknown.append(full_name if ours is None else f'{full_name} (no tensor)')
            continue
        if ours in result.sources:
            raise ValueError(
                f'two tensors of the {method} checkpoint become {ours!r}: '
                f'{result.sources[ours]} and {full_name}'
            )
        change = look_up(changes or {}, name)
        result.state_dict[ours] = change[0](tensor) if change else tensor
        result.sources[ours] = full_name
    if unknown:
        raise ValueError(f'not a {method} checkpoint: {count_and_name(unknown, "unknown tensor")}')
    return result


def differences(
    renamed: Renamed,
    shapes: Mapping[str, tuple[int, ...]],
    published: Mapping[str, Tensor],
    table: Mapping[str, str],
) -> list[list[str]]:
    """Compare a renamed state dict with a network of ours, under the published names.

    Args:
        renamed: What :func:`rename` returned.
        shapes: Name -> shape of our network.
        published: What was renamed.
        table: As given to :func:`rename`.

    Returns:
        What is missing, what has another shape, and what the network does not have.
    """
    back = inverse(table)
    missing = [translate(back, n) or n for n in shapes if n not in renamed.state_dict]
    other, surplus = [], []
    for name, source in renamed.sources.items():
        if name not in shapes:
            surplus.append(source)
        elif tuple(renamed.state_dict[name].shape) != tuple(shapes[name]):
            found = tuple(published[source].shape)
            # the weight of a linear layer can be published as that of a convolution
            wanted = tuple(shapes[name])
            wanted += (1,) * (len(found) - len(wanted))
            other.append(f'{source} is {found}, should be {wanted}')
    return [missing, other, surplus]


def describe(found: list[list[str]]) -> str:
    """Say in one line what :func:`differences` found."""
    missing, other, surplus = found
    parts = [
        count_and_name(missing, 'missing tensor'),
        count_and_name(other, 'tensor', 'of another shape'),
        count_and_name(surplus, 'tensor', 'that it does not have'),
    ]
    return '; '.join(filter(None, parts))


def count_and_name(names: list[str], what: str, more: str = '') -> str:
    """Count names and list the first 50, e.g. ``2 unknown tensors: a, b``; no names, no text."""
    if not names:
        return ''
    label = ' '.join(filter(None, [f'{len(names)} {what}{"s" * (len(names) > 1)}', more]))
    rest = f' and {len(names) - 50} more' if len(names) > 50 else ''
    shown = [name if len(name) <= 120 else f'{name[:120]}...' for name in names[:50]]
    return f'{label}: {", ".join(shown)}{rest}'


def preceded(prefix: str, patterns: Mapping[str, Value]) -> dict[str, Value]:
    """Make the patterns of a part those of the whole network."""
    return {prefix + pattern: value for pattern, value in patterns.items()}
