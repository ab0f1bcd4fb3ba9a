"""CGFormer's protocol: corners on corners, cubic, above one half."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample

from nemo_mmseg.models.protocols.cgformer import CGFormerProtocol
from nemo_mmseg.models.structures import HeadOutput

INPUT = (48, 48)


def run(logits, size=INPUT, threshold=0.5, **meta):
    sample = SegDataSample(metainfo=meta)
    CGFormerProtocol(threshold)(HeadOutput(logits), torch.empty(3, *size), sample)
    return sample.seg_logits.data, sample.pred_sem_seg.data


def logits(*shape):
    torch.manual_seed(0)
    return 3 * torch.randn(2, 1, *shape).double()


@pytest.mark.parametrize('shape', [(75, 100), (48, 48), (31, 20), (48, 64)])
@pytest.mark.parametrize('size', [(48, 48), (12, 12)])
def test_it_is_pytorchs_resize_of_the_probabilities(shape, size):
    given = logits(*size)
    found, mask = run(given, ori_shape=shape, img_shape=INPUT)
    x = F.interpolate(given, INPUT, mode='bilinear', align_corners=True).sigmoid()
    expected = F.interpolate(x, shape, mode='bicubic', align_corners=True)[:, 0]
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-9)
    assert torch.equal(mask.bool(), expected > 0.5)
    assert 0 <= found.min() and found.max() <= 1


def test_flips_and_borders_are_undone():
    given = logits(48, 48)
    expected, _ = run(given, ori_shape=(75, 100), img_shape=INPUT)
    for direction, dims in (('horizontal', [3]), ('vertical', [2]), ('diagonal', [2, 3])):
        meta = dict(ori_shape=(75, 100), img_shape=INPUT, flip=True, flip_direction=direction)
        found, _ = run(given.flip(dims), **meta)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    # an image between borders, as a letterbox leaves it: 24 x 32 of 48 x 48 pixels
    matrix = [[0.32, 0, 8 + 0.16 - 0.5], [0, 0.32, 12 + 0.16 - 0.5]]
    found, _ = run(given, ori_shape=(75, 100), warp_matrix=matrix)
    inner = given[..., 12:36, 8:40].sigmoid()
    alone = F.interpolate(inner, (75, 100), mode='bicubic', align_corners=True)[:, 0]
    # away from the border, where cubic resampling looks beyond it
    kept = (..., slice(5, -5), slice(5, -5))
    torch.testing.assert_close(found[kept], alone.clamp(0, 1)[kept], rtol=0, atol=1e-9)


def test_thresholds_are_probabilities():
    for threshold, expected in ((0.49, 600), (0.51, 0)):
        meta = dict(threshold=threshold, ori_shape=(20, 30), img_shape=INPUT)
        _, mask = run(torch.zeros(1, 1, 12, 12), **meta)
        assert mask.shape == (1, 20, 30) and mask.sum() == expected
    for threshold in (0.0, 1.0, -3):
        with pytest.raises(ValueError, match=f'CGFormerProtocol: threshold={threshold} is not in'):
            CGFormerProtocol(threshold)
