"""Values that change from pass to pass over the data.

A ramp is a function of the pass alone (``results['visit']``), so that no hook has to reach into a
worker and a resumed run goes on where it stopped.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any


@dataclass(frozen=True)
class LinearRamp:
    """From one value to another in equal steps.

    Args:
        begin: Pass over the data, from 0, up to which the value is ``first``.
        end: Pass from which it is ``last``.
        first: The value at the beginning.
        last: The value at the end.

    Raises:
        ValueError: The ramp ends before it begins.
    """

    begin: int
    end: int
    first: float
    last: float

    def __post_init__(self) -> None:
        _check_numbers(self, (self.first, self.last))
        if not (_is_pass(self.begin) and _is_pass(self.end)) or self.end <= self.begin:
            raise ValueError(
                f'{self} never reaches its last value: begin and end are passes (0, 1, 2, ...), '
                'and end must come after begin'
            )

    def __call__(self, visit: int) -> float:
        """The value in a pass."""
        if visit >= self.end:
            return self.last
        share = max(visit - self.begin, 0) / (self.end - self.begin)
        return self.first + share * (self.last - self.first)

    @property
    def corners(self) -> tuple[int, ...]:
        """Passes at which the value may begin or cease to change."""
        return self.begin, self.end

    def reaches(self, passes: int) -> bool:
        """Whether it has its last value when training ends after so many passes (or then)."""
        return self.end <= passes


@dataclass(frozen=True)
class StepRamp:
    """A value for each stage of the training.

    Args:
        milestones: Passes over the data at which the next value begins, rising.
        values: The values, one more than milestones.

    Raises:
        ValueError: The milestones do not rise, or the numbers do not fit.
    """

    milestones: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, 'milestones', tuple(self.milestones))
        object.__setattr__(self, 'values', tuple(self.values))
        _check_numbers(self, self.values)
        passes = self.milestones and all(map(_is_pass, self.milestones))
        if not passes or any(b <= a for a, b in zip((0, *self.milestones), self.milestones)):
            raise ValueError(f'{self}: milestones must be rising passes, the first after pass 0')
        if len(self.values) != len(self.milestones) + 1:
            raise ValueError(f'{self} needs one value more than milestones')

    def __call__(self, visit: int) -> float:
        """The value in a pass."""
        return self.values[bisect_right(self.milestones, visit)]

    @property
    def corners(self) -> tuple[int, ...]:
        """Passes at which the value changes."""
        return self.milestones

    def reaches(self, passes: int) -> bool:
        """Whether training of so many passes comes to the last value."""
        return self.milestones[-1] < passes


def _check_numbers(ramp: object, values: Iterable[Any]) -> None:
    if not all(map(is_number, values)):
        raise ValueError(f'{ramp}: its values must be numbers')


Ramp = LinearRamp | StepRamp
_TYPES = dict(LinearRamp=LinearRamp, StepRamp=StepRamp)


def is_number(value: Any) -> bool:
    """Whether a value of a config is a finite number, and not a flag."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_pass(value: Any) -> bool:
    return is_number(value) and value == int(value) and value >= 0


def build_ramp(value: float | dict | Ramp, name: str = 'value') -> float | Ramp:
    """A ramp from its config, ``dict(type='LinearRamp' or 'StepRamp', ...)``.

    Args:
        value: The config; a number or a ramp is returned as it is.
        name: What the error message calls it.

    Raises:
        ValueError: Neither number nor ramp, an unknown type, wrong arguments, or a ramp that makes
            no sense.
    """
    if not isinstance(value, dict):
        if not (is_number(value) or isinstance(value, Ramp)):
            raise ValueError(f'{name}={value!r} is neither a number nor a ramp')
        return value
    settings = dict(value)
    kind = settings.pop('type', None)
    if kind not in _TYPES:
        raise ValueError(f'a ramp is dict(type=..., ...) with a type of {list(_TYPES)}: {value}')
    try:
        return _TYPES[kind](**settings)
    except TypeError as error:
        raise ValueError(f'{value} is no ramp: {error}') from None


def value_at(value: float | Ramp | None, visit: int) -> float | None:
    """A number, or what a ramp gives in a pass."""
    return value(visit) if isinstance(value, Ramp) else value


def deciding_passes(values: Iterable[float | Ramp | None], begin: int = 0) -> list[int]:
    """The passes from ``begin`` on at which sums of these values are extreme.

    Between two corners all change linearly or not at all, so that corners and the passes beside
    them stand for all passes.
    """
    corners = {begin} | {c for value in values if isinstance(value, Ramp) for c in value.corners}
    near = {corner + step for corner in corners for step in (-1, 0)}
    return sorted(visit for visit in near if visit >= begin)
