"""What a field of a file may hold, and the one kind of error for a field that holds something else.

A table of rules, one a field, is a schema. The files are not ours: a value can be of any type and
size, and one read from a pickle can contain itself or be exponentially large when written out.
Nothing here walks through a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

MISSING = type('Missing', (), {'__repr__': lambda self: 'missing'})()


class DataError(ValueError):
    """A file holds what it must not. The message names file, entry, field, found and allowed."""


def fault(entry: str, field: str, found: Any, allowed: str) -> DataError:
    """Make the error for one field.

    Args:
        entry: File and entry, e.g. ``'refs(unc).p: reference 7'``.
        field: The field, e.g. ``'ann_id'``.
        found: Its value, or ``MISSING``.
        allowed: What it may hold, in words.

    Returns:
        The error, to raise or to list.
    """
    return DataError(f'{entry}: {field} is {shown(found)}; allowed: {allowed}')


def shown(value: Any, limit: int = 80) -> str:
    """Describe a value of a file in about ``limit`` characters, whatever it is.

    Args:
        value: Anything that JSON or a plain pickle can hold.
        limit: Number of characters after which a description is cut. Defaults to 80.

    Returns:
        The description. A text is called one, so that ``'7'`` is told from 7.
    """
    described = _described(value, limit, depth=2)
    described = described if len(described) <= limit else f'{described[:limit]}...'
    return f'the text {described}' if isinstance(value, str) else described


def _described(value: Any, limit: int, depth: int) -> str:
    if isinstance(value, (str, bytes)):
        return repr(value[:limit]) + ('...' if len(value) > limit else '')
    if isinstance(value, int) and value.bit_length() > 128:
        return f'a number of {value.bit_length()} bits'
    if not isinstance(value, (list, tuple, dict, set, frozenset)):
        return repr(value)
    if not depth and value:
        return f'a {type(value).__name__} of {len(value)}'
    first = islice(value.items() if isinstance(value, dict) else ((one,) for one in value), 4)
    parts = [': '.join(_described(one, limit, depth - 1) for one in item) for item in first]
    more = [f'... {len(value)} in all'] if len(value) > 4 else []
    left, right = '{}' if isinstance(value, (dict, set, frozenset)) else '[]'
    return left + ', '.join(parts + more) + right


@dataclass(frozen=True)
class Rule:
    """What a field may hold.

    Attributes:
        allowed: In words, for the message.
        holds: Says whether a value, or ``MISSING``, is allowed.
    """

    allowed: str
    holds: Callable[[Any], bool]

    def or_missing(self) -> Rule:
        """Return the rule of a field that an entry may lack."""
        return Rule(self.allowed, lambda value: value is MISSING or self.holds(value))


def whole_number(low: int, high: int, name: str) -> Rule:
    """Make the rule of a whole number; neither a float nor a boolean is one.

    Args:
        low: Smallest number.
        high: First number that is too large.
        name: Of the range, for the message.

    Returns:
        The rule.
    """
    return Rule(f'a whole number {name}', lambda value: type(value) is int and low <= value < high)


def is_text(value: Any) -> bool:
    """Whether a value is a text that is not blank and can be written to a file."""
    if type(value) is not str or not value.strip():
        return False
    return value.isascii() or not any('\ud800' <= character <= '\udfff' for character in value)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that is neither NaN nor infinite nor beyond 2**63."""
    return type(value) in (int, float) and -(2**63) < value < 2**63 and not math.isnan(value)


class Faults:
    """What becomes of errors: the first one is raised, or all are listed.

    Args:
        errors: List that gets the messages. Defaults to None, which raises.
    """

    def __init__(self, errors: list[str] | None = None) -> None:
        self.errors = errors

    def add(self, error: DataError) -> None:
        """Raise the error, or list it."""
        if self.errors is None:
            raise error
        self.errors.append(str(error))

    def check(
        self, record: Any, rules: dict[str, Rule], file: str, kind: str, row: int, key: str
    ) -> bool:
        """Compare an entry of a file with the rules of its kind.

        Args:
            record: The entry.
            rules: By field. Other fields are not looked at.
            file: The file, for the message.
            kind: What the entry is, e.g. ``'reference'``, for the message.
            row: Its position in the file, which names an entry whose id is faulty.
            key: The field that is its id.

        Returns:
            Whether the entry is sound.
        """
        if type(record) is not dict:
            self.add(fault(file, f'{kind} at position {row}', record, 'a dict'))
            return False
        get = record.get
        wrong = [name for name, rule in rules.items() if not rule.holds(get(name, MISSING))]
        if wrong:
            number = MISSING if key in wrong else get(key, MISSING)
            name = f'at position {row}' if number is MISSING else shown(number)
            entry = f'{file}: {kind} {name}'
            for field in wrong:
                self.add(fault(entry, field, get(field, MISSING), rules[field].allowed))
        return not wrong
