"""Samplers whose indices carry the pass over the data: by epoch, and endless."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmseg.registry import DATA_SAMPLERS

from .sample_index import SampleIndex


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
            yield SampleIndex(index, visit=self.epoch, seed=self.seed)


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
            yield SampleIndex(index, visit=position // self.size, seed=self.seed)
