"""Counting pixels, against numpy."""

import numpy as np
import pytest
import torch

from nemo_mmseg.evaluation.iou import count_pixels, iou_values, masks_of


def test_counts_equal_numpy_with_ignored_pixels():
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 2, (5, 17, 23), dtype=np.uint8)
    gt = rng.choice(np.array([0, 1, 255], np.uint8), (5, 17, 23))
    for ignore_index in (255, None):
        counted = gt != ignore_index if ignore_index else np.ones_like(gt, bool)
        masks = (prediction == 1) & counted, (gt > 0) & counted
        got = count_pixels(torch.tensor(prediction), torch.tensor(gt), ignore_index)
        expected = masks[0] & masks[1], masks[0] | masks[1], masks[1]
        for one, other in zip(got, expected, strict=True):
            assert one.tolist() == other.sum((1, 2)).tolist()


def test_bool_masks_count_as_integers_do():
    prediction = torch.rand(2, 9, 9) > 0.5
    gt = (torch.rand(2, 9, 9) > 0.5).to(torch.uint8)
    as_bool = count_pixels(prediction, gt.bool())
    as_int = count_pixels(prediction.long(), gt)
    assert all(torch.equal(a, b) for a, b in zip(as_bool, as_int, strict=True))


def test_empty_unions():
    assert iou_values([0, 3], [0, 6]).tolist() == [1.0, 0.5]
    assert iou_values([0, 3], [0, 6], 0.0).tolist() == [0.0, 0.5]
    assert iou_values([0, 0], [0, 0], np.array([True, False])).tolist() == [1.0, 0.0]


def test_missing_masks_are_named():
    with pytest.raises(KeyError, match=r'a\.jpg.*LoadReferentMask'):
        masks_of(dict(img_path='a.jpg'), 'gt_sem_seg')
    assert masks_of(dict(gt_sem_seg=dict(data=torch.zeros(4, 5))), 'gt_sem_seg').shape == (1, 4, 5)
