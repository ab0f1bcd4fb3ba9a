"""A sample is a function of seed, epoch and index: workers, loops and resuming change nothing."""

import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset, pseudo_collate
from mmseg.registry import DATASETS
from torch.utils.data import DataLoader

from nemo_mmseg.datasets.samplers import (
    InfiniteReferringSampler,
    ReferringSampler,
    SampleIndex,
    seeded_global_state,
)

LOAD = [
    dict(type='LoadReferringImage'),
    dict(type='LoadReferentMask'),
    dict(type='Letterbox', size=(32, 32)),
]
# Includes probabilities that change with the epoch, and MMSegmentation's random transforms.
PIPELINE = [
    dict(type='SampleExpressions'),
    dict(
        type='NeMoMosaic', size=(32, 32), transforms=LOAD, fill=dict(fit='crop'),
        grid=dict(cells=[(2, 2), (1, 2)], jitter='free', min_cell=4),
        schedule=dict(
            mined=0, random=dict(type='LinearRamp', begin=0, end=3, first=0.3, last=0.9)
        ),
    ),
    dict(type='ReferringFlip'),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomCutOut', prob=0.5, n_holes=2, cutout_shape=(4, 4)),
    dict(type='PackReferringInputs'),
]  # fmt: skip


def digest(sample):
    meta = sample['data_samples'].metainfo
    return (
        sample['inputs'].numpy().tobytes(),
        sample['data_samples'].gt_sem_seg.data.numpy().tobytes(),
        meta['expressions'][0],
        str(meta.get('mosaic')),
    )


def samples(dataset, sampler, workers=0, **kwargs):
    loader = DataLoader(
        dataset, 2, sampler=sampler, num_workers=workers, collate_fn=pseudo_collate, **kwargs
    )
    for batch in loader:
        for inputs, sample in zip(batch['inputs'], batch['data_samples']):
            yield digest(dict(inputs=inputs, data_samples=sample))


def take(iterator, number):
    return [next(iterator) for _ in range(number)]


def test_an_index_keeps_its_epoch_through_pickling_and_wrappers():
    index = SampleIndex(13, epoch=4, seed=7)
    copy = pickle.loads(pickle.dumps(index))
    assert (copy, copy.epoch, copy.seed) == (13, 4, 7)
    assert ((index - 3), (index - 3).epoch, (index - 3).seed) == (10, 4, 7)
    rest = index % 5
    assert (rest, rest.epoch, rest.repeat) == (3, 4, 2)
    states = {
        SampleIndex(i, v, s, r).generator().random()
        for i in range(3)
        for v in range(3)
        for s in range(3)
        for r in range(3)
    }
    assert len(states) == 81


def test_global_state_is_seeded_and_put_back():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    with seeded_global_state(5):
        inside = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with seeded_global_state(5):
        assert draw() == inside
    assert draw() == expected


def test_epochs_are_the_same_with_any_workers_and_differ_from_one_another(mini):
    dataset = DATASETS.build(mini.config(PIPELINE))

    def epochs(workers, **kwargs):
        sampler = ReferringSampler(dataset, seed=3)
        if kwargs:  # persistent workers: one loader for all epochs
            loader = DataLoader(
                dataset,
                2,
                sampler=sampler,
                num_workers=workers,
                collate_fn=pseudo_collate,
                **kwargs,
            )
        result = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            if not kwargs:
                loader = DataLoader(
                    dataset, 2, sampler=sampler, num_workers=workers, collate_fn=pseudo_collate
                )
            result.append(
                [
                    digest(dict(inputs=i, data_samples=s))
                    for batch in loader
                    for i, s in zip(batch['inputs'], batch['data_samples'])
                ]
            )
        return result

    alone = epochs(0)
    assert set(alone[0]).isdisjoint(alone[1])
    assert epochs(1) == alone
    assert epochs(4) == alone
    assert epochs(4, persistent_workers=True) == alone


def test_endless_samples_are_the_same_with_any_workers_and_after_a_skip(mini):
    dataset = DATASETS.build(mini.config(PIPELINE))
    unbroken = take(samples(dataset, InfiniteReferringSampler(dataset, seed=3)), 14)
    for workers in (1, 4):
        sampler = InfiniteReferringSampler(dataset, seed=3)
        assert take(samples(dataset, sampler, workers), 14) == unbroken
    for start in range(0, 13, 2):
        sampler = InfiniteReferringSampler(dataset, seed=3)
        if hasattr(sampler, 'skip'):  # OneDL's loop; the original's loop draws and discards
            sampler.skip(start)
            resumed = samples(dataset, sampler)
        else:
            resumed = samples(dataset, sampler)
            take(resumed, start)
        assert take(resumed, 14 - start) == unbroken[start:]
    other = take(samples(dataset, InfiniteReferringSampler(dataset, seed=4)), 14)
    assert other != unbroken


def test_epochs_of_the_endless_sampler_count_up(mini):
    dataset = DATASETS.build(mini.config())
    indices = take(iter(InfiniteReferringSampler(dataset, seed=0)), 12)
    assert [i.epoch for i in indices] == [0] * 5 + [1] * 5 + [2] * 2
    assert sorted(indices[:5]) == sorted(indices[5:10]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('wrapper', ['concat', 'repeat'])
def test_wrapped_data_sets_keep_the_epoch(mini, wrapper):
    config = mini.config(PIPELINE)
    if wrapper == 'concat':
        dataset = ConcatDataset([mini.config(PIPELINE, split='val'), config])
        inner, shift = dataset.datasets[1], 1
    else:
        dataset = RepeatDataset(config, times=2)
        inner, shift = dataset.dataset, 0
    for epoch in range(3):
        for index in range(5):
            outer = digest(dataset[SampleIndex(index + shift, epoch, 9)])
            assert outer == digest(inner[SampleIndex(index, epoch, 9)])
    if wrapper == 'repeat':  # the second time round is no copy of the first
        first = [digest(dataset[SampleIndex(i, 0, 9)]) for i in range(5)]
        second = [digest(dataset[SampleIndex(i + 5, 0, 9)]) for i in range(5)]
        assert first != second
        again = [digest(inner[SampleIndex(i, v, 9)]) for v in (1, 2) for i in range(5)]
        assert not set(second) & set(again)
