"""What a field of a file may hold, and the one kind of error for a field that holds something else.

A table of rules, one a field, is a schema. The files are not ours: a value can be of any type and
size, and one read from a pickle can contain itself or be exponentially large when written out.
Nothing here walks through a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import eq
from typing import Any


class _Missing:
    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return 'missing'


MISSING = _Missing()  # the value of a field that an entry lacks


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


@contextmanager
def told_by(entry: str) -> Iterator[None]:
    """Put an entry in front of what is said of the files that it names.

    Args:
        entry: File and entry, e.g. ``'table.csv: line 7'``.

    Raises:
        FileNotFoundError: One is missing.
        ValueError: One is damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{entry}: {error}') from error
    except ValueError as error:
        raise ValueError(f'{entry}: {error}') from error


@dataclass(frozen=True)
class Rule:
    """What a field may hold, told for many values at once.

    Attributes:
        allowed: In words, for the message.
        types: The types; of one that is not listed no value is allowed, so True is no int.
        low: Smallest number. Defaults to None, which is for what are no numbers.
        high: First number that is too large.
        also: What else must be true of a value. Defaults to nothing.
        optional: Whether an entry may lack the field.
    """

    allowed: str
    types: tuple[type, ...]
    low: int | None = None
    high: int | None = None
    also: Callable[[Any], bool] | None = None
    optional: bool = False

    def holds(self, *values: Any) -> bool:
        """Whether all of some values, or ``MISSING``, are allowed."""
        if self.optional:
            values = tuple(value for value in values if value is not MISSING)
        if not set(map(type, values)) <= set(self.types):
            return False
        if values and self.low is not None:
            # NaN differs from itself. Where there is one, min and max say nothing.
            if not all(map(eq, values, values)):
                return False
            if min(values) < self.low or max(values) >= self.high:
                return False
        return self.also is None or all(map(self.also, values))


def is_text(value: str) -> bool:
    """Whether a text is not blank and can be written to a file (no half of a surrogate pair)."""
    if not value.strip():
        return False
    return value.isascii() or not any('\ud800' <= character <= '\udfff' for character in value)


def all_sound(records: Sequence, rules: dict[str, Rule]) -> bool:
    """Whether all entries of a file keep the rules of their kind."""
    return set(map(type, records)) <= {dict} and all(
        rule.holds(*[record.get(name, MISSING) for record in records])
        for name, rule in rules.items()
    )


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
        self, records: Sequence, rules: dict[str, Rule], file: str, kind: str, key: str
    ) -> list[bool]:
        """Compare entries of a file with the rules of their kind.

        Args:
            records: The entries.
            rules: By field. Other fields are not looked at.
            file: The file, for the message.
            kind: What an entry is, e.g. ``'reference'``, for the message.
            key: The field that is its id. The position names an entry whose id is faulty.

        Returns:
            Which entries are sound.
        """
        if all_sound(records, rules):
            return [True] * len(records)
        return [
            self._check_one(record, rules, file, f'{kind} at position {row}', kind, key)
            for row, record in enumerate(records)
        ]

    def _check_one(
        self, record: Any, rules: dict[str, Rule], file: str, place: str, kind: str, key: str
    ) -> bool:
        if type(record) is not dict:
            self.add(fault(file, place, record, 'a dict'))
            return False
        number = record.get(key, MISSING)
        known = number is not MISSING and (key not in rules or rules[key].holds(number))
        return self.check_one(
            record, rules, f'{file}: {f"{kind} {shown(number)}" if known else place}'
        )

    def check_one(self, record: dict, rules: dict[str, Rule], entry: str) -> bool:
        """Compare one entry of a file with the rules of its kind.

        Args:
            record: The entry.
            rules: By field. Other fields are not looked at.
            entry: File and entry, for the message.

        Returns:
            Whether the entry is sound.
        """
        values = {name: record.get(name, MISSING) for name in rules}
        wrong = [name for name, rule in rules.items() if not rule.holds(values[name])]
        for name in wrong:
            self.add(fault(entry, name, values[name], rules[name].allowed))
        return not wrong


class OnlyOnce:
    """Refuses ids, or names, that an earlier entry has.

    Args:
        faults: What becomes of errors.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._first: dict[tuple[str, Any], str] = {}

    def is_new(self, entry: str, field: str, value: Any) -> bool:
        """Whether no earlier entry, told by file and place, has that value of the field."""
        first = self._first.get((field, value))
        if first is not None:
            allowed = f'one that no other entry has; {first} has it'
            self.faults.add(fault(entry, field, value, allowed))
            return False
        self._first[field, value] = entry
        return True
