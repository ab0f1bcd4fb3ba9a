"""When a mosaic is made, of which kind, and from which band, as functions of the epoch.

Nothing here has a state: no hook has to reach into a worker, and a resumed run goes on where it
stopped. Any number may be a ramp.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Real

from mmseg.registry import TASK_UTILS

from nemo_mmseg.negatives.band import BandRule


@TASK_UTILS.register_module()
@dataclass(frozen=True)
class LinearRamp:
    """A number that changes in equal steps, ``dict(type='LinearRamp', ...)`` in a config.

    Args:
        begin: Epoch, from 0, up to which the value is ``first``.
        end: Epoch from which the value is ``last``; after ``begin``.
        first: The value at the beginning.
        last: The value at the end.
    """

    begin: int
    end: int
    first: float
    last: float

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end:
            raise ValueError(f'{self}: end must be an epoch after begin, which is 0 or more')

    def __call__(self, epoch: int) -> float:
        """Return the value in an epoch."""
        if epoch >= self.end:
            return self.last
        share = max(epoch - self.begin, 0) / (self.end - self.begin)
        return self.first + share * (self.last - self.first)

    @property
    def num_epochs(self) -> int:
        """Epochs that a training needs to run through the ramp."""
        return self.end


@TASK_UTILS.register_module()
@dataclass(frozen=True)
class StepRamp:
    """A number that changes at milestones, ``dict(type='StepRamp', ...)`` in a config.

    Args:
        milestones: Epochs at which the next value begins, rising, the first after epoch 0.
        values: The values, one more than milestones.
    """

    milestones: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, 'milestones', tuple(self.milestones))
        object.__setattr__(self, 'values', tuple(self.values))
        rise = all(a < b for a, b in zip((0, *self.milestones), self.milestones))
        if not (self.milestones and rise and len(self.values) == len(self.milestones) + 1):
            raise ValueError(f'{self} needs rising epochs, and one value more than milestones')

    def __call__(self, epoch: int) -> float:
        """Return the value in an epoch."""
        return self.values[bisect_right(self.milestones, epoch)]

    @property
    def num_epochs(self) -> int:
        """Epochs that a training needs to run through the ramp."""
        return self.milestones[-1] + 1


Ramp = LinearRamp | StepRamp


def build_value(name: str, value: float | dict | Ramp) -> float | Ramp:
    """Build what a config writes where a number may be a ramp.

    Args:
        name: The option, for the error message.
        value: A number, a ramp, or ``dict(type='LinearRamp' or 'StepRamp', ...)``; the type may be
            the class.

    Raises:
        ValueError: It is something else, or the ramp makes no sense.
    """
    try:
        found = TASK_UTILS.build(value) if isinstance(value, dict) else value
        if isinstance(found, Ramp) or (isinstance(found, Real) and math.isfinite(found)):
            return found
        raise TypeError('it is neither a number nor a LinearRamp or StepRamp')
    except (KeyError, TypeError) as error:
        raise ValueError(f'{name}={value!r}: {error}') from error


def value_at(value: float | Ramp | None, epoch: int) -> float | None:
    """Return a number, or what a ramp gives in an epoch."""
    return value(epoch) if isinstance(value, Ramp) else value


class _Values:
    """What the two schedules share: their numbers may be ramps."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type != 'str' and value is not None:
                object.__setattr__(self, field.name, build_value(field.name, value))

    @property
    def ramps(self) -> dict[str, Ramp]:
        """The ramps among the options, by name."""
        return {key: value for key, value in vars(self).items() if isinstance(value, Ramp)}


@dataclass(frozen=True)
class MosaicSchedule(_Values):
    """How often a sample becomes a mosaic; probabilities are numbers or ramps.

    Args:
        mined: From ``start_epoch`` on, the chance of a mosaic with mined negatives.
        random: From ``start_epoch`` on, the chance of a mosaic with random negatives. The two
            exclude one another; the other samples are made without mosaic.
        warmup: Before ``start_epoch``, the chance of a mosaic with random negatives.
        start_epoch: Epoch, from 0, at which mined mosaics begin.
    """

    mined: float | Ramp = 0.5
    random: float | Ramp = 0.0
    warmup: float | Ramp = 0.0
    start_epoch: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.start_epoch, int) and self.start_epoch >= 0):
            raise ValueError(f'start_epoch={self.start_epoch!r} must be an epoch: 0, 1, 2, ...')

    def probabilities(self, epoch: int) -> tuple[float, float]:
        """Return the chances of a random and of a mined mosaic in an epoch."""
        if epoch < self.start_epoch:
            return value_at(self.warmup, epoch), 0.0
        return value_at(self.random, epoch), value_at(self.mined, epoch)

    def kind(self, epoch: int, draw: float) -> str | None:
        """Return what a sample becomes.

        Args:
            epoch: The epoch.
            draw: A uniform number in [0, 1).

        Returns:
            ``'random'``, ``'mined'``, or None for no mosaic.
        """
        random, mined = self.probabilities(epoch)
        if draw < random:
            return 'random'
        return 'mined' if draw < random + mined else None


@dataclass(frozen=True)
class BandSchedule(_Values):
    """Which images an expression's negatives are drawn from; numbers may be ramps.

    Args:
        tau: Upper threshold; see :class:`~nemo_mmseg.negatives.BandRule`, as the next three.
        tau_mode: ``'relative'``, ``'margin'``, ``'absolute'`` or ``'rank'``.
        top_k: Images in the band.
        i2i_sim_thres: Images more similar than this to the target's image are dropped; None drops
            none.
        too_few: What to do if the band holds too few images for the grid: ``'random'`` fills the
            remaining cells with random images, ``'skip'`` makes the sample without mosaic.
    """

    tau: float | Ramp | None = 0.95
    tau_mode: str = 'relative'
    top_k: int | Ramp = 100
    i2i_sim_thres: float | Ramp | None = None
    too_few: str = 'random'

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.too_few not in ('random', 'skip'):
            raise ValueError(f"band: too_few={self.too_few!r} is neither 'random' nor 'skip'")

    def at(self, epoch: int) -> BandRule:
        """Return the band of an epoch; ramps of counts are rounded."""
        tau, top_k = value_at(self.tau, epoch), value_at(self.top_k, epoch)
        if isinstance(self.tau, Ramp) and self.tau_mode == 'rank':
            tau = round(tau)
        if isinstance(self.top_k, Ramp):
            top_k = round(top_k)
        return BandRule(tau, self.tau_mode, top_k, value_at(self.i2i_sim_thres, epoch))


def bands_of_training(
    schedule: MosaicSchedule, band: BandSchedule, max_epochs: int | None = None
) -> list[BandRule]:
    """Go through the epochs of a training and collect the bands that mined mosaics draw from.

    Args:
        schedule: Of the mosaics.
        band: Of the mined ones.
        max_epochs: Epochs of the training; None for as many as the options speak of.

    Returns:
        The bands of the epochs with mined mosaics, each once, in their order.

    Raises:
        ValueError: In some epoch the probabilities or the band make no sense, or the training is
            too short or begins too late for a ramp or for ``start_epoch``.
    """
    start, ramps = schedule.start_epoch, {**schedule.ramps, **band.ramps}
    epochs = max_epochs or max([start + 1, *(ramp.num_epochs + 1 for ramp in ramps.values())])
    rules = {}
    for epoch in range(epochs):
        random, mined = schedule.probabilities(epoch)
        if not (random >= 0 and mined >= 0 and random + mined <= 1 + 1e-9):
            chances = f'random={random} and mined={mined}'
            raise ValueError(f'epoch {epoch}: {chances} must be 0 or more, in sum at most 1')
        if mined > 0:
            rules[band.at(epoch)] = None
    for name, ramp in ramps.items():
        # `warmup` is for the epochs before `start_epoch`, the others are for those from it on.
        used = range(start) if name == 'warmup' else range(start, epochs)
        if len({ramp(epoch) for epoch in used}) < 2 or ramp.num_epochs > used.stop:
            raise ValueError(
                f'{name}={ramp} does not run its course in the epochs {used.start} to '
                f'{used.stop - 1} of this training, in which it is used'
            )
    if start >= epochs and (schedule.mined or schedule.random):
        raise ValueError(f'start_epoch={start}, but this training has {epochs} epochs')
    if start == 0 and schedule.warmup:
        raise ValueError(f'warmup={schedule.warmup} is for epochs before start_epoch=0')
    return list(rules)
