"""Samplers whose indices carry the epoch, so that a sample is a function of (seed, epoch, index).

Workers, prefetching and resuming then change no sample: the epoch reaches the data set inside a
worker with the index, without any shared state.
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
    """An ``int`` that carries the seed, the epoch, and the repetition inside the epoch.

    It survives what MMEngine's wrappers do to an index: ``ConcatDataset`` subtracts the sizes of
    the data sets before, ``RepeatDataset`` takes the remainder.

    Args:
        value: The index itself.
        epoch: Epoch, from 0. An endless sampler begins a new one after all samples.
        seed: Seed of the run.
        repeat: Which repetition inside the epoch (``RepeatDataset``).
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
        # Repetitions can be nested; the factor keeps the two numbers apart.
        return SampleIndex(value, self.epoch, self.seed, self.repeat * 1_000_003 + rounds)

    def generator(self) -> np.random.Generator:
        """Make the sample's own random generator, the same in every process."""
        return np.random.default_rng([self.seed, self.epoch, self.repeat, int(self)])


@DATA_SAMPLERS.register_module()
class ReferringSampler(DefaultSampler):
    """Sampler for epochs.

    It differs from PyTorch's ``DistributedSampler`` like MMEngine's ``DefaultSampler``, of which it
    has the order: it also runs without distributed training, and ``round_up`` can be switched off.
    It differs from that one in yielding :class:`SampleIndex`.

    Args:
        dataset: The data set.
        shuffle: Whether to draw a new order in each epoch. Defaults to True.
        seed: Seed of the order and the samples; the runner passes its own. Defaults to None, which
            draws one.
        round_up: Whether to pad the shares of the ranks to equal length. Defaults to True.
    """

    def __iter__(self) -> Iterator[SampleIndex]:
        for index in super().__iter__():
            yield SampleIndex(index, epoch=self.epoch, seed=self.seed)


@DATA_SAMPLERS.register_module()
class InfiniteReferringSampler(InfiniteSampler):
    """Sampler for iteration-based training.

    It never ends. The order is that of MMEngine's ``InfiniteSampler``, from which it differs in
    yielding :class:`SampleIndex`: an epoch is over when every sample was drawn once.

    Args:
        dataset: The data set.
        shuffle: Whether to draw a new order in each epoch. Defaults to True.
        seed: Seed of the order and the samples; the runner passes its own. Defaults to None, which
            draws one.
    """

    def _infinite_indices(self) -> Iterator[SampleIndex]:
        for position, index in enumerate(super()._infinite_indices()):
            yield SampleIndex(index, epoch=position // self.size, seed=self.seed)


@contextmanager
def seeded_global_state(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch (CPU), then restore their states.

    MMSegmentation's transforms draw from these. Seeding them per sample makes a sample independent
    of what its worker did before.

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
    """Look up the generator of a sample.

    Args:
        results: What travels through a pipeline. A sample of another package's data set has no
            ``'rng'`` and gets one, seeded from NumPy's global state.

    Returns:
        ``results['rng']``.
    """
    if 'rng' not in results:
        results['rng'] = np.random.default_rng(np.random.randint(0, 2**31, size=4))
    return results['rng']
