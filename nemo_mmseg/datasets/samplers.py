"""An index that knows the pass over the data it belongs to.

A sample is a function of (seed, pass, index). The samplers of this package yield
:class:`SampleIndex` instead of plain integers, so the pass reaches the data set inside a worker
without any shared state.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmseg.registry import DATA_SAMPLERS


class SampleIndex(int):
    """An ``int`` that carries the seed, the pass, and the repetition inside the pass.

    It survives what MMEngine's wrappers do to an index: ``ConcatDataset`` subtracts the sizes of
    the data sets before, ``RepeatDataset`` takes the remainder.

    Args:
        value: The index itself.
        epoch: Pass over the data, from 0: the epoch, or for an endless sampler the number of
            completed passes.
        seed: Seed of the run.
        repeat: Which repetition inside the pass (``RepeatDataset``).
    """

    epoch: int
    seed: int
    repeat: int

    def __new__(cls, value: int, epoch: int = 0, seed: int = 0, repeat: int = 0) -> SampleIndex:
        """Make an index; the arguments are those of the class."""
        index = super().__new__(cls, value)
        index.epoch, index.seed, index.repeat = int(epoch), int(seed), int(repeat)
        return index

    def __getnewargs__(self) -> tuple[int, int, int, int]:
        return int(self), self.epoch, self.seed, self.repeat

    def __sub__(self, offset: int) -> SampleIndex:
        return SampleIndex(int(self) - offset, self.epoch, self.seed, self.repeat)

    def __mod__(self, size: int) -> SampleIndex:
        rounds, value = divmod(int(self), size)
        # A nested repetition needs a number of its own; the factor keeps the two apart.
        return SampleIndex(value, self.epoch, self.seed, self.repeat * 1_000_003 + rounds)

    def generator(self) -> np.random.Generator:
        """The sample's own random generator, the same in every process."""
        return np.random.default_rng([self.seed, self.epoch, self.repeat, int(self)])


@contextmanager
def seeded_global_state(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch (CPU), and put their states back.

    MMSegmentation's transforms draw from these; so a sample does not depend on what its worker did
    before.

    Args:
        seed: Any number below 2**32.
    """
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed)
    # torch.manual_seed would also queue a call for CUDA in every worker, at every sample.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def generator_of(results: dict) -> np.random.Generator:
    """The generator of the sample in ``results``.

    Args:
        results: What travels through a pipeline. A sample from another data set brings no
            ``'rng'``; it gets one that NumPy's global state seeds.

    Returns:
        ``results['rng']``.
    """
    if 'rng' not in results:
        results['rng'] = np.random.default_rng(np.random.randint(0, 2**31, size=4))
    return results['rng']


@DATA_SAMPLERS.register_module()
class ReferringSampler(DefaultSampler):
    """MMEngine's ``DefaultSampler`` for epochs, yielding :class:`SampleIndex`.

    Args:
        dataset: The data set.
        shuffle: Whether the order is drawn anew at each epoch. Defaults to True.
        seed: Seed of order and samples; the runner gives its own. None draws one.
        round_up: Whether the shares of the ranks are padded to equal length. Defaults to True.
    """

    def __iter__(self) -> Iterator[SampleIndex]:
        for index in super().__iter__():
            yield SampleIndex(index, epoch=self.epoch, seed=self.seed)


@DATA_SAMPLERS.register_module()
class InfiniteReferringSampler(InfiniteSampler):
    """MMEngine's ``InfiniteSampler`` for iteration loops, yielding :class:`SampleIndex`.

    The pass is the number of times that the data set was gone through before.

    Args:
        dataset: The data set.
        shuffle: Whether the order is drawn anew in each pass. Defaults to True.
        seed: Seed of order and samples; the runner gives its own. None draws one.
    """

    def _infinite_indices(self) -> Iterator[SampleIndex]:
        for position, index in enumerate(super()._infinite_indices()):
            yield SampleIndex(index, epoch=position // self.size, seed=self.seed)
