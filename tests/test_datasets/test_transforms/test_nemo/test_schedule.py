"""Ramps over the passes, against tables worked out by hand."""

import pickle

import numpy as np
import pytest

from nemo_mmseg.datasets.transforms.nemo.schedule import (
    LinearRamp,
    StepRamp,
    build_ramp,
    deciding_passes,
    value_at,
)


def test_linear_by_hand():
    ramp = build_ramp(dict(type='LinearRamp', begin=2, end=6, first=0.1, last=0.5))
    expected = [0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5]
    assert [ramp(epoch) for epoch in range(9)] == pytest.approx(expected)
    assert ramp(6) == ramp(10**9) == 0.5  # the very number, not a sum that rounds to it
    falling = LinearRamp(0, 3, 90, 0)
    assert [falling(epoch) for epoch in range(5)] == pytest.approx([90, 60, 30, 0, 0])


def test_steps_by_hand():
    ramp = build_ramp(dict(type='StepRamp', milestones=[2, 5], values=[100, 60, 30]))
    assert [ramp(epoch) for epoch in range(7)] == [100, 100, 60, 60, 60, 30, 30]


def test_numbers_are_constant_and_ramps_pickle():
    assert build_ramp(0.3) == 0.3
    assert value_at(0.3, 7) == 0.3 and value_at(None, 7) is None
    for ramp in (LinearRamp(0, 2, 0, 1), StepRamp([1], [0, 1])):
        assert build_ramp(ramp) is ramp and pickle.loads(pickle.dumps(ramp)) == ramp


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(type='LinearRamp', begin=5, end=5, first=0, last=1), 'never reaches'),
        (dict(type='LinearRamp', begin=5, end=2, first=0, last=1), 'end must come after begin'),
        (dict(type='LinearRamp', begin=-1, end=2, first=0, last=1), 'are passes'),
        (dict(type='LinearRamp', begin=0, end=2.5, first=0, last=1), 'are passes'),
        (dict(type='LinearRamp', begin=0, end=2, first=0), 'no ramp.*last'),
        (dict(type='StepRamp', milestones=[], values=[1]), 'rising passes'),
        (dict(type='StepRamp', milestones=[3, 3], values=[1, 2, 3]), 'rising passes'),
        (dict(type='StepRamp', milestones=[0, 3], values=[1, 2, 3]), 'rising passes'),
        (dict(type='StepRamp', milestones=[1, 3], values=[1, 2]), 'one value more'),
        (dict(type='LinearRamp', begin=0, end=float('inf'), first=0, last=1), 'are passes'),
        (dict(type='LinearRamp', begin=0, end=2, first='0', last=1), 'must be numbers'),
        (dict(type='StepRamp', milestones=['1'], values=[0, 1]), 'rising passes'),
        (dict(type='StepRamp', milestones=[1], values=[0, None]), 'must be numbers'),
        ('0.3', "value='0.3' is neither"),
        (True, 'neither a number'),
        (dict(type='CosineRamp'), "type of .'LinearRamp', 'StepRamp'"),
        (dict(begin=0, end=2, first=0, last=1), 'type'),
    ],
)
def test_ramps_without_sense_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_ramp(config)


def test_reaching():
    assert LinearRamp(0, 10, 0, 1).reaches(10) and not LinearRamp(0, 10, 0, 1).reaches(9)
    assert StepRamp([9], [0, 1]).reaches(10) and not StepRamp([10], [0, 1]).reaches(10)


def random_ramp(rng):
    if rng.random() < 0.5:
        begin = int(rng.integers(0, 20))
        return LinearRamp(begin, begin + int(rng.integers(1, 20)), *rng.uniform(-1, 1, 2))
    milestones = np.sort(rng.choice(np.arange(1, 40), int(rng.integers(1, 4)), replace=False))
    return StepRamp(milestones.tolist(), rng.uniform(-1, 1, len(milestones) + 1).tolist())


def test_the_deciding_passes_hold_the_extremes_of_all():
    rng = np.random.default_rng(0)
    for _ in range(300):
        ramps = [random_ramp(rng), random_ramp(rng), 0.25]
        begin = int(rng.integers(0, 30))
        sums = [sum(value_at(ramp, epoch) for ramp in ramps) for epoch in range(begin, 60)]
        few = [sum(value_at(ramp, v) for ramp in ramps) for v in deciding_passes(ramps, begin)]
        assert (min(few), max(few)) == pytest.approx((min(sums), max(sums)))
        assert len(few) <= 13
