"""Ramps and schedules over the epochs, against tables worked out by hand."""

import collections
import pickle

import numpy as np
import pytest

from nemo_mmseg.datasets.transforms.nemo.schedule import (
    BandSchedule,
    LinearRamp,
    MosaicSchedule,
    StepRamp,
    bands_of_training,
    build_value,
)


def ramp(first, last, begin=0, end=4):
    return dict(type='LinearRamp', begin=begin, end=end, first=first, last=last)


def steps(milestones, values):
    return dict(type='StepRamp', milestones=milestones, values=values)


def test_linear_by_hand():
    value = build_value('x', ramp(0.1, 0.5, 2, 6))
    expected = [0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5]
    assert [value(epoch) for epoch in range(9)] == pytest.approx(expected)
    assert value(6) == value(10**9) == 0.5  # the very number, not a sum that rounds to it
    falling = LinearRamp(0, 3, 90, 0)
    assert [falling(epoch) for epoch in range(5)] == pytest.approx([90, 60, 30, 0, 0])


def test_steps_by_hand():
    value = build_value('x', steps([2, 5], [100, 60, 30]))
    assert [value(epoch) for epoch in range(7)] == [100, 100, 60, 60, 60, 30, 30]


def test_ramps_pickle():
    for value in (LinearRamp(0, 2, 0, 1), StepRamp([1], [0, 1])):
        assert pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize('kind', ['LinearRamp', 'mmseg.LinearRamp', LinearRamp])
def test_the_type_of_a_ramp_is_a_name_or_the_class(kind):
    built = MosaicSchedule(mined=dict(type=kind, begin=0, end=2, first=0, last=1))
    assert built.mined == LinearRamp(0, 2, 0, 1)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (ramp(0, 1, 5, 5), 'end must be an epoch after begin'),
        (ramp(0, 1, 5, 2), 'end must be an epoch after begin'),
        (ramp(0, 1, -1, 2), 'begin, which is 0 or more'),
        (dict(type='LinearRamp', begin=0, end=2, first=0), "mined=.*'last'"),
        (steps([], [1]), 'rising epochs'),
        (steps([3, 3], [1, 2, 3]), 'rising epochs'),
        (steps([0, 3], [1, 2, 3]), 'rising epochs'),
        (steps([1, 3], [1, 2]), 'one value more'),
        ('0.3', "mined='0.3': .*neither a number nor a"),
        (float('nan'), 'mined=nan: .*neither'),
        ([10, 60], r'mined=\[10, 60\]: .*neither'),
        (dict(type='CosineRamp'), 'CosineRamp'),
        (dict(begin=0, end=2, first=0, last=1), '"type"'),
    ],
)
def test_values_without_sense_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        MosaicSchedule(mined=config)


def test_probabilities_by_hand():
    schedule = MosaicSchedule(
        warmup=ramp(0, 0.4, 0, 2), mined=ramp(0, 0.8, 2, 6), random=steps([5], [0.2, 0.1]),
        start_epoch=3,
    )  # fmt: skip
    draws = np.linspace(0, 1, 1000, endpoint=False)
    expected = [(0, 0), (0.2, 0), (0.4, 0), (0.2, 0.2), (0.2, 0.4), (0.1, 0.6), (0.1, 0.8)]
    for epoch, (random, mined) in enumerate(expected):
        counts = collections.Counter(schedule.kind(epoch, draw) for draw in draws)
        assert counts['random'] == pytest.approx(1000 * random, abs=1)
        assert counts['mined'] == pytest.approx(1000 * mined, abs=1)


def check(max_epochs=None, **settings):
    names = 'mined random warmup start_epoch'.split()
    schedule = {name: settings.pop(name) for name in names if name in settings}
    return bands_of_training(MosaicSchedule(**schedule), BandSchedule(**settings), max_epochs)


def test_the_bands_of_all_epochs_each_once():
    rules = check(tau=ramp(0.8, 0.95, 1, 5), top_k=steps([3], [90, 30]))
    assert [(round(rule.tau, 4), rule.top_k) for rule in rules] == [
        (0.8, 90), (0.8375, 90), (0.875, 30), (0.9125, 30), (0.95, 30),
    ]  # fmt: skip
    assert len(check()) == 1 and check(mined=0) == []
    # No band is looked at before mined mosaics begin, or while there are none.
    later = check(mined=steps([5], [0, 0.5]), top_k=steps([5], [1, 60]))
    assert [rule.top_k for rule in later] == [60]
    counts = check(tau=ramp(6, 0), tau_mode='rank', top_k=ramp(10, 60))
    found = [(rule.tau, rule.top_k) for rule in counts]
    assert found == [(6, 10), (4, 22), (3, 35), (2, 48), (0, 60)]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(mined=0.6, random=0.6), 'epoch 0: random=0.6 and mined=0.6 .*at most 1'),
        (dict(mined=-0.1), 'mined=-0.1'),
        (dict(warmup=1.1, start_epoch=2), 'epoch 0: random=1.1'),
        (dict(mined=ramp(0, 1.2)), 'epoch 4: .*mined=1.2'),
        (dict(mined=ramp(0.2, 0.9), random=0.2), 'epoch 4.*at most 1'),
        (dict(mined=ramp(0, 0.9, 0, 10), random=steps([8], [0.4, 0.0])), 'epoch 7.*at most 1'),
        (dict(start_epoch=-1), 'start_epoch=-1 must be an epoch'),
        (dict(start_epoch=ramp(0, 1)), 'start_epoch=.* must be an epoch'),
        (dict(warmup=0.5), 'warmup=0.5 is for epochs before'),
        (dict(warmup=ramp(0, 0.5, 0, 6), start_epoch=5), 'warmup=.*epochs 0 to 4'),
        (dict(warmup=steps([5], [0, 1]), start_epoch=5), 'warmup=.*epochs 0 to 4'),
        (dict(mined=ramp(0, 0.5), start_epoch=4), 'mined=.*does not run its course'),
        (dict(tau=ramp(0.8, 0.95), start_epoch=5), 'tau=.*does not run its course'),
        (dict(top_k=steps([2, 4], [90, 90, 60]), start_epoch=4), 'top_k=.*does not run its course'),
        (dict(tau=ramp(1.0, -1.0)), 'tau=-0.5 must be a share'),
        (dict(tau=0.9, tau_mode='rank'), 'whole number of images'),
        (dict(tau=None), 'tau=None needs i2i_sim_thres'),
        (dict(top_k=ramp(10, 0)), 'top_k=0'),
        (dict(i2i_sim_thres=2), 'i2i_sim_thres=2'),
        (dict(max_epochs=9, tau=ramp(0.8, 0.95, 2, 10)), 'tau=.*epochs 0 to 8 of this training'),
        (dict(max_epochs=4, start_epoch=4), 'start_epoch=4, but this training has 4 epochs'),
    ],
)
def test_options_that_contradict_one_another_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check(**settings)


def test_options_that_go_together():
    check(mined=ramp(0, 0.9, 0, 10), random=steps([2], [0.7, 0.1]))
    check(warmup=ramp(0, 0.5, 0, 5), start_epoch=5)
    # Before start_epoch neither counts.
    check(random=ramp(0.9, 0.2, 0, 6), mined=0.6, start_epoch=5, warmup=0.9)
    # The last step is at the epoch at which it is used.
    check(mined=ramp(0, 0.5, 0, 5), start_epoch=4)
    check(mined=steps([5], [0.1, 0.5]), start_epoch=4)
    check(max_epochs=10, tau=ramp(0.8, 0.95, 2, 10))
    check(max_epochs=4, start_epoch=4, mined=0)
