"""Values that change from pass to pass over the data.

A ramp is a function of the pass alone (``results['epoch']``), so that no hook has to reach into a
worker and a resumed run goes on where it stopped.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from nemo_mmseg.negatives.band import BandRule


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

    def __call__(self, epoch: int) -> float:
        """The value in a pass."""
        if epoch >= self.end:
            return self.last
        share = max(epoch - self.begin, 0) / (self.end - self.begin)
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

    def __call__(self, epoch: int) -> float:
        """The value in a pass."""
        return self.values[bisect_right(self.milestones, epoch)]

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


def value_at(value: float | Ramp | None, epoch: int) -> float | None:
    """A number, or what a ramp gives in a pass."""
    return value(epoch) if isinstance(value, Ramp) else value


def deciding_passes(values: Iterable[float | Ramp | None], begin: int = 0) -> list[int]:
    """The passes from ``begin`` on at which sums of these values are extreme.

    Between two corners all change linearly or not at all, so that corners and the passes beside
    them stand for all passes.
    """
    corners = {begin} | {c for value in values if isinstance(value, Ramp) for c in value.corners}
    near = {corner + step for corner in corners for step in (-1, 0)}
    return sorted(epoch for epoch in near if epoch >= begin)


class MosaicSchedule:
    """Probabilities and band of :class:`NeMoMosaic`, whose arguments these are.

    Args:
        warmup_prob: Number or ramp.
        random_prob: Number or ramp.
        mined_prob: Number or ramp.
        start_epoch: Pass at which mined mosaics begin.
        tau: Number, ramp or None.
        tau_mode: See :class:`nemo_mmseg.mining.BandRule`.
        top_k: Number or ramp.
        i2i_sim_thres: Number, ramp or None.
        keep: Images that the bank stores an expression, where it is known.

    Raises:
        ValueError: Values that are no numbers, probabilities outside [0, 1] or with a sum above 1
            in some pass, a warm-up of no pass or one that ends before its ramp, another ramp that
            is over when ``start_epoch`` comes, or a band that makes no sense in some pass.
    """

    def __init__(
        self,
        warmup_prob: float | dict | Ramp,
        random_prob: float | dict | Ramp,
        mined_prob: float | dict | Ramp,
        start_epoch: int,
        tau: float | dict | Ramp | None,
        tau_mode: str,
        top_k: int | dict | Ramp,
        i2i_sim_thres: float | dict | Ramp | None,
        keep: int | None = None,
    ) -> None:
        self.start_epoch, self.tau_mode, self.keep = start_epoch, tau_mode, keep
        needed = dict(
            warmup_prob=warmup_prob, random_prob=random_prob, mined_prob=mined_prob, top_k=top_k
        )
        thresholds = dict(tau=tau, i2i_sim_thres=i2i_sim_thres)
        self.values = {name: build_ramp(value, name) for name, value in needed.items()}
        for name, value in thresholds.items():
            self.values[name] = None if value is None else build_ramp(value, name)
        if not is_number(start_epoch) or start_epoch < 0 or start_epoch != int(start_epoch):
            raise ValueError(f'start_epoch={start_epoch} must be a pass: 0, 1, 2, ...')
        if keep is not None and not (is_number(keep) and keep >= 1 and keep == int(keep)):
            raise ValueError(f'keep={keep!r} of the bank must be a positive whole number')
        self._check_probabilities()
        self._check_ramps()
        for rule in self.rules():
            rule.check(keep)

    def at(self, name: str, epoch: int) -> float | None:
        """A value in a pass."""
        return value_at(self.values[name], epoch)

    def _passes(self, *names: str) -> list[int]:
        """Those from ``start_epoch`` on that stand for all, as far as these values go."""
        return deciding_passes([self.values[name] for name in names], self.start_epoch)

    def _check_probabilities(self) -> None:
        names = ('warmup_prob', 'random_prob', 'mined_prob')
        for name in names:
            for epoch in deciding_passes([self.values[name]]):
                if not 0 <= self.at(name, epoch) <= 1:
                    where = f' in pass {epoch}' if isinstance(self.values[name], Ramp) else ''
                    raise ValueError(f'{name}={self.at(name, epoch)}{where} is not in [0, 1]')
        if self.start_epoch == 0 and self.values['warmup_prob'] != 0:
            raise ValueError(
                f'warmup_prob={self.values["warmup_prob"]} is for the passes before start_epoch=0, '
                'but there are none (random_prob is for those from it on)'
            )
        for epoch in self._passes('random_prob', 'mined_prob'):
            drawn, mined = self.at('random_prob', epoch), self.at('mined_prob', epoch)
            if drawn + mined > 1 + 1e-9:
                raise ValueError(
                    f'random_prob={drawn} and mined_prob={mined} (in pass {epoch}) exclude one '
                    'another, so their sum must be at most 1'
                )

    def _check_ramps(self) -> None:
        for name, value in self.values.items():
            if not isinstance(value, Ramp):
                continue
            if name == 'warmup_prob':
                if not value.reaches(self.start_epoch):
                    raise ValueError(
                        f'{name}={value} does not reach its last value in the passes before '
                        f'start_epoch={self.start_epoch}, the only ones it is for'
                    )
            elif value.corners[-1] <= self.start_epoch:
                raise ValueError(
                    f'{name}={value} is over before start_epoch={self.start_epoch}, but it is for '
                    'the passes from there on'
                )

    @property
    def mines(self) -> bool:
        """Whether any pass has mined mosaics."""
        return any(self.at('mined_prob', epoch) > 0 for epoch in self._passes('mined_prob'))

    def kind_at(self, epoch: int, draw: float) -> str | None:
        """What a sample becomes.

        Args:
            epoch: Pass over the data, from 0.
            draw: Uniform number in [0, 1).

        Returns:
            ``'random'``, ``'mined'``, or None for the plain sample.
        """
        if epoch < self.start_epoch:
            return 'random' if draw < self.at('warmup_prob', epoch) else None
        random_prob = self.at('random_prob', epoch)
        if draw < random_prob:
            return 'random'
        return 'mined' if draw < random_prob + self.at('mined_prob', epoch) else None

    def rule_at(self, epoch: int) -> BandRule:
        """The band in a pass; ramps of counts are rounded."""
        tau, top_k = self.at('tau', epoch), self.at('top_k', epoch)
        if isinstance(self.values['tau'], Ramp) and self.tau_mode == 'rank':
            tau = round(tau)
        if isinstance(self.values['top_k'], Ramp):
            top_k = round(top_k)
        return BandRule(tau, self.tau_mode, top_k, self.at('i2i_sim_thres', epoch))

    def rules(self) -> list[BandRule]:
        """The bands between whose bounds all others lie, in the order of the passes."""
        rules = map(self.rule_at, self._passes('tau', 'top_k', 'i2i_sim_thres'))
        return list(dict.fromkeys(rules))

    def check_cells(self, cells: int) -> None:
        """Refuse bands that can never fill a grid with negatives.

        Random images may fill up a band that is short for some expressions. Were it short for all,
        a mined mosaic would be a random one to a good part, or ``short_band='plain'`` make none.

        Args:
            cells: Of the grid; of several grids the smallest, or the largest if none may be short.

        Raises:
            ValueError: In some pass with mined mosaics there are fewer.
        """
        passes = self._passes('tau', 'top_k', 'i2i_sim_thres', 'mined_prob')
        for rule in [self.rule_at(epoch) for epoch in passes if self.at('mined_prob', epoch) > 0]:
            most = rule.top_k
            if self.keep is not None:
                skipped = (rule.tau or 0) if rule.tau_mode == 'rank' else 0
                most = min(most, self.keep - skipped)
            if most < cells - 1:
                raise ValueError(
                    f'a grid of {cells} cells needs {cells - 1} mined negatives, but {rule} with '
                    f'keep={self.keep} never gives more than {most}'
                )

    def check_passes(self, passes: int) -> None:
        """Refuse a training that is over before a ramp, or before the mined mosaics.

        Args:
            passes: Passes over the data that the training makes.

        Raises:
            ValueError: It is.
        """
        for name, value in self.values.items():
            if isinstance(value, Ramp) and not value.reaches(passes):
                raise ValueError(
                    f'{name}={value} does not reach its last value in the {passes} passes over the '
                    'data of this training'
                )
        if self.mines and self.start_epoch >= passes:
            raise ValueError(
                f'mined mosaics begin at start_epoch={self.start_epoch}, but this training makes '
                f'{passes} passes over the data (0 to {passes - 1})'
            )
