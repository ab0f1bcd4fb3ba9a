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


class SampleIndex(int):
    """An ``int`` that carries the seed, the pass, and the repetition inside the pass.

    It survives what MMEngine's wrappers do to an index: ``ConcatDataset`` subtracts the sizes of
    the data sets before, ``RepeatDataset`` takes the remainder.

    Args:
        value: The index itself.
        visit: Pass over the data, from 0: the epoch, or for an endless sampler the number of
            completed passes.
        seed: Seed of the run.
        repeat: Which repetition inside the pass (``RepeatDataset``).
    """

    visit: int
    seed: int
    repeat: int

    def __new__(cls, value: int, visit: int = 0, seed: int = 0, repeat: int = 0) -> SampleIndex:
        """Make an index; the arguments are those of the class."""
        index = super().__new__(cls, value)
        index.visit, index.seed, index.repeat = int(visit), int(seed), int(repeat)
        return index

    def __getnewargs__(self) -> tuple[int, int, int, int]:
        return int(self), self.visit, self.seed, self.repeat

    def __sub__(self, offset: int) -> SampleIndex:
        return SampleIndex(int(self) - offset, self.visit, self.seed, self.repeat)

    def __mod__(self, size: int) -> SampleIndex:
        rounds, value = divmod(int(self), size)
        # A nested repetition needs a number of its own; the factor keeps the two apart.
        return SampleIndex(value, self.visit, self.seed, self.repeat * 1_000_003 + rounds)

    def generator(self) -> np.random.Generator:
        """The sample's own random generator, the same in every process."""
        return np.random.default_rng([self.seed, self.visit, self.repeat, int(self)])


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
