"""Counting and dividing, against numpy."""

import math

import numpy as np
import pytest
import torch

from nemo_mmseg.evaluation.iou import intersection_and_union, iou_values, masks_of, summarize


def test_counts_equal_numpy_with_ignored_pixels():
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 2, (5, 17, 23), dtype=np.uint8)
    truth = rng.choice(np.array([0, 1, 255], np.uint8), (5, 17, 23))
    counted = truth != 255
    got = intersection_and_union(torch.tensor(prediction), torch.tensor(truth))
    assert got[0].tolist() == ((prediction == 1) & (truth == 1)).sum((1, 2)).tolist()
    union = (((prediction == 1) | (truth == 1)) & counted).sum((1, 2))
    assert got[1].tolist() == union.tolist()
    everything = intersection_and_union(torch.tensor(prediction), torch.tensor(truth), None)
    assert everything[1].tolist() == ((prediction == 1) | (truth > 0)).sum((1, 2)).tolist()


def test_bool_masks_count_as_integers_do():
    prediction = torch.rand(2, 9, 9) > 0.5
    truth = (torch.rand(2, 9, 9) > 0.5).to(torch.uint8)
    as_bool = intersection_and_union(prediction, truth.bool())
    as_int = intersection_and_union(prediction.long(), truth)
    assert all(torch.equal(a, b) for a, b in zip(as_bool, as_int, strict=True))


@pytest.mark.parametrize('shape', [(2, 8, 9), (1, 8, 8), (8, 8)])
def test_shapes_that_differ_are_refused(shape):
    with pytest.raises(ValueError, match='same shape'):
        intersection_and_union(torch.zeros(2, 8, 8), torch.zeros(shape))


def test_empty_union():
    assert iou_values([0, 3], [0, 6]).tolist() == [1.0, 0.5]
    assert iou_values([0, 3], [0, 6], 0.0).tolist() == [0.0, 0.5]
    assert summarize([0], [0], empty_union=0.0)['oIoU'] == 0.0
    assert summarize([0], [0])['Pr@0.9'] == 100.0


def test_ties_at_each_threshold():
    # 5/10 ... 9/10 are exactly the thresholds
    intersection, union = np.arange(5, 10), np.full(5, 10)
    with_tie = summarize(intersection, union, tie='>=')
    without = summarize(intersection, union, tie='>')
    keys = [f'Pr@0.{digit}' for digit in range(5, 10)]
    assert [with_tie[key] for key in keys] == pytest.approx([100, 80, 60, 40, 20])
    assert [without[key] for key in keys] == pytest.approx([80, 60, 40, 20, 0])
    with pytest.raises(ValueError, match='tie must be'):
        summarize(intersection, union, tie='>>')


def test_no_expression_is_not_a_number():
    assert all(math.isnan(value) for value in summarize([], []).values())


def test_missing_masks_are_named():
    with pytest.raises(KeyError, match=r'a\.jpg.*LoadReferentMask'):
        masks_of(dict(img_path='a.jpg'), 'gt_sem_seg')
    assert masks_of(dict(gt_sem_seg=dict(data=torch.zeros(4, 5))), 'gt_sem_seg').shape == (1, 4, 5)
