"""Scores on all, reviewed and cleaned ground truth side by side, against numbers by hand."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

import nemo_mmseg  # noqa: F401  (registers)
from nemo_mmseg.models.protocols.geometry import stretch_gt


def rows(*heights):
    masks = np.zeros((len(heights), 10, 10), np.uint8)
    for mask, height in zip(masks, heights):
        mask[:height] = 1
    return PixelData(data=torch.from_numpy(masks))


def sample(prediction, gt, clean=None, reviewed=None):
    """Masks of whole rows; `clean` has None for an expression without a clean mask."""
    number = len(prediction)
    meta = dict(img_path='a.jpg', sent_ids=list(range(number)), expressions=['it'] * number)
    if clean is not None:
        meta['cleaned'] = [height is not None for height in clean]
    if reviewed is not None:
        meta['reviewed'] = reviewed
    made = SegDataSample(metainfo=meta)
    made.pred_sem_seg, made.gt_sem_seg = rows(*prediction), rows(*gt)
    if clean is not None:
        made.gt_clean_seg = rows(*(height or 0 for height in clean))
    return made


def evaluate(*samples):
    evaluator = Evaluator([METRICS.build(dict(type='CleanReferringIoU'))])
    for one in samples:
        evaluator.process([one])
    return evaluator.evaluate(len(samples))


def test_each_ground_truth_has_its_measures():
    metrics = evaluate(
        sample((4, 4, 2), (8, 4, 8), clean=(4, None, 4), reviewed=[True, False, None]),
        sample((5,), (10,), clean=(None,), reviewed=[True]),
    )
    # IoU with the published masks: 4/8, 1, 2/8, 5/10; with the clean ones: 1, -, 2/4, -
    assert metrics['mIoU'] == pytest.approx(100 * (0.5 + 1 + 0.25 + 0.5) / 4)
    assert metrics['reviewed/mIoU'] == pytest.approx(50)
    assert metrics['rejected/mIoU'] == pytest.approx(100)
    assert metrics['cleanable/mIoU'] == pytest.approx(100 * (0.5 + 0.25) / 2)
    assert metrics['cleanable/oIoU'] == pytest.approx(100 * (4 + 2) / (8 + 8))
    assert metrics['clean/mIoU'] == pytest.approx(75)
    assert metrics['clean/oIoU'] == pytest.approx(100 * (4 + 2) / (4 + 4))
    assert metrics['clean/Pr@0.7'] == pytest.approx(50)
    assert metrics['clean_right/mIoU'] == pytest.approx(100)
    sizes = {key: metrics[f'{key}/expressions'] for key in ('reviewed', 'clean', 'clean_right')}
    assert sizes == dict(reviewed=2, clean=2, clean_right=1) and metrics['expressions'] == 4


def test_a_set_without_an_expression_is_left_out():
    metrics = evaluate(sample((4,), (8,), reviewed=[True]))
    assert metrics['reviewed/mIoU'] == 50
    assert not any(key.startswith(('clean', 'rejected')) for key in metrics)
    metrics = evaluate(sample((4,), (8,), clean=(4,)))
    assert metrics['clean/mIoU'] == 100 and 'reviewed/mIoU' not in metrics


def test_labels_are_needed():
    with pytest.raises(ValueError, match='a data set with gt_overlay or reviewed'):
        evaluate(sample((4,), (8,)))


def test_a_protocol_stretches_both_ground_truths():
    one = sample((4,), (8,), clean=(4,))
    stretch_gt(one, (20, 30))
    for field, height in (('gt_sem_seg', 16), ('gt_clean_seg', 8)):
        mask = one.get(field).data[0]
        assert mask.shape == (20, 30) and mask.dtype == torch.uint8
        assert mask[:height].all() and not mask[height:].any()
