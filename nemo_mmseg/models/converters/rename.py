"""Renaming a state dict by a table of prefixes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def rename_by_prefix(
    published: Mapping[str, Tensor],
    table: Mapping[str, str],
    left_out: Mapping[str, str],
    method: str,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rename every tensor by the longest prefix in a table that it starts with.

    Args:
        published: State dict with the published names; a leading ``module.`` is dropped.
        table: Published prefix -> our prefix. A prefix ends at a dot or at the end of the name.
        left_out: Published name -> why we have no such tensor.
        method: Name of the network, for errors.

    Returns:
        Our state dict, and the names that were left out with their reasons.

    Raises:
        ValueError: A name fits no prefix, or two tensors get the same name.
    """
    ours: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    unknown = []
    prefixes = sorted(table, key=len, reverse=True)
    for full_name, tensor in published.items():
        name = full_name.removeprefix('module.')
        if name in left_out:
            dropped[full_name] = left_out[name]
            continue
        prefix = next((p for p in prefixes if name == p or name.startswith(f'{p}.')), None)
        if prefix is None:
            unknown.append(full_name)
            continue
        renamed = table[prefix] + name[len(prefix) :]
        if renamed in ours:
            raise ValueError(f'two tensors of the {method} checkpoint become {renamed!r}')
        ours[renamed] = tensor
    if unknown:
        shown = ', '.join(unknown[:5]) + (' ...' if len(unknown) > 5 else '')
        raise ValueError(f'not a {method} checkpoint: {len(unknown)} unknown tensors: {shown}')
    return ours, dropped
