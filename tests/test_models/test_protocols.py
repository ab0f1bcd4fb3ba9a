import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from nemo_mmseg.models.protocols.cris import CRISProtocol
from nemo_mmseg.models.protocols.lavt import LAVTProtocol
from nemo_mmseg.models.protocols.original import OriginalProtocol
from nemo_mmseg.models.protocols.rela import ReLAProtocol
from nemo_mmseg.models.protocols.tris import TRISProtocol
from nemo_mmseg.models.structures import HeadOutput

SIZE = 96
PROTOCOLS = [OriginalProtocol, CRISProtocol, LAVTProtocol]


def apply(protocol, logits, sample, size=(SIZE, SIZE)):
    """Let a protocol store the masks of logits for an input of a size."""
    protocol(HeadOutput(logits), torch.empty(3, *size), sample)


def letterbox(height, width):
    """CRIS's matrices, by cv2 from three pairs of points, as published."""
    scale = min(SIZE / height, SIZE / width)
    dx, dy = (SIZE - width * scale) / 2, (SIZE - height * scale) / 2
    ours = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    theirs = ours * np.float32(scale) + np.array([dx, dy], np.float32)
    theirs = theirs.astype(np.float32)
    return cv2.getAffineTransform(ours, theirs), cv2.getAffineTransform(theirs, ours)


def blobs(count, height, width):
    """Smooth maps with values around 0."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    maps = [np.sin(9 * x + i) + np.cos(7 * y - 2 * i) for i in range(count)]
    return torch.tensor(np.stack(maps), dtype=torch.float32)[:, None]


def iou(a, b):
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize('shape', [(60, 80), (83, 41), (200, 300)])
def test_cris_is_the_published_sequence(sample, shape):
    forth, back = letterbox(*shape)
    logits = blobs(3, 24, 24)
    one = sample('abc', ori_shape=shape, warp_matrix=forth.tolist())
    apply(CRISProtocol(), logits, one)
    probability = F.interpolate(logits.sigmoid(), (SIZE, SIZE), mode='bicubic', align_corners=True)
    for row, found in zip(probability[:, 0].numpy(), one.pred_sem_seg.data.numpy(), strict=True):
        expected = cv2.warpAffine(row, back, shape[::-1], flags=cv2.INTER_CUBIC, borderValue=0.0)
        assert found.shape == shape
        # the two matrices are inverse only to float32, so that a few pixels at the edge may differ
        assert ((expected > 0.35) != found).sum() <= 4


@pytest.mark.parametrize('protocol', [OriginalProtocol, CRISProtocol])
@pytest.mark.parametrize('shape', [(60, 80), (83, 41), (200, 300)])
@pytest.mark.parametrize('way', ['letterbox', 'stretch'])
@pytest.mark.parametrize('flip', [None, 'horizontal', 'vertical'])
def test_masks_come_back_to_where_they_were(sample, protocol, shape, way, flip):
    height, width = shape
    mask = np.zeros(shape, np.float32)
    cv2.ellipse(mask, (width // 3, height // 2), (width // 5, height // 4), 0, 0, 360, 1, -1)
    meta = dict(ori_shape=shape, img_shape=(SIZE, SIZE))
    if way == 'letterbox':
        meta['warp_matrix'] = letterbox(*shape)[0].tolist()
        seen = cv2.warpAffine(mask, np.array(meta['warp_matrix']), (SIZE, SIZE))
    else:
        seen = cv2.resize(mask, (SIZE, SIZE))
    if flip:
        meta.update(flip=True, flip_direction=flip)
        seen = np.ascontiguousarray(seen[:, ::-1] if flip == 'horizontal' else seen[::-1])
    logits = torch.from_numpy(seen)[None, None] * 20 - 10
    one = sample(['a'], **meta)
    apply(protocol(threshold=0.5), logits, one)
    assert iou(one.pred_sem_seg.data[0].numpy() > 0, mask > 0.5) > 0.93


def test_original_equals_plain_interpolation_for_a_stretched_image(sample):
    logits = blobs(2, 24, 32)
    one = sample('ab', ori_shape=(50, 70))
    apply(OriginalProtocol(), logits, one, (96, 128))
    expected = F.interpolate(logits, (96, 128), mode='bilinear')
    expected = F.interpolate(expected, (50, 70), mode='bilinear')[:, 0].sigmoid()
    torch.testing.assert_close(one.seg_logits.data, expected, atol=1e-5, rtol=0)
    different = one.pred_sem_seg.data != (expected > 0.5)
    assert not different[(expected - 0.5).abs() > 1e-5].any()


def test_original_drops_the_padding_of_the_preprocessor(sample):
    logits = blobs(1, 24, 32)
    padded = F.pad(F.interpolate(logits, (96, 128), mode='bilinear'), (0, 32, 0, 64), value=-50)
    plain, one = sample('a', ori_shape=(50, 70)), sample('a', ori_shape=(50, 70))
    one.set_metainfo(dict(img_padding_size=(0, 32, 0, 64)))
    apply(OriginalProtocol(), logits, plain, (96, 128))
    apply(OriginalProtocol(), padded, one, (160, 160))
    inside = (slice(None), slice(0, 48), slice(0, 68))  # the last pixels touch the padding
    torch.testing.assert_close(
        one.seg_logits.data[inside], plain.seg_logits.data[inside], atol=1e-5, rtol=0
    )


def test_lavt_compares_480_squares_with_the_ground_truth_of_pil(sample):
    logits = torch.randn(2, 2, 120, 120)
    one = sample('ab', gt=(333, 217), ori_shape=(333, 217))
    gt = one.gt_sem_seg.data.clone()
    apply(LAVTProtocol(), logits, one, (480, 480))
    expected = F.interpolate(logits, (480, 480), mode='bilinear', align_corners=True).argmax(1)
    different = one.pred_sem_seg.data != expected
    assert different.float().mean() < 1e-4
    nearest = [np.asarray(Image.fromarray(m.numpy()).resize((480, 480), Image.NEAREST)) for m in gt]
    assert (one.gt_sem_seg.data.numpy() == np.stack(nearest)).all()


def test_lavt_on_a_letterboxed_input(sample):
    mask = np.zeros((60, 80), np.float32)
    mask[10:40, 5:30] = 1
    forth, _ = letterbox(60, 80)
    logits = torch.from_numpy(cv2.warpAffine(mask, forth, (SIZE, SIZE)))[None, None] * 20 - 10
    one = sample('a', ori_shape=(60, 80), warp_matrix=forth.tolist())
    apply(LAVTProtocol(), logits, one)
    expected = cv2.resize(mask, (480, 480), interpolation=cv2.INTER_LINEAR) > 0.5
    assert iou(one.pred_sem_seg.data[0].numpy() > 0, expected) > 0.93


def test_rela_compares_sigmoids_in_480_squares(sample):
    logits = 30 * torch.randn(2, 2, 120, 120)
    one = sample('ab', gt=(480, 480), ori_shape=(333, 217))
    gt = one.gt_sem_seg.data.clone()
    apply(ReLAProtocol(), logits, one, (480, 480))
    large = F.interpolate(logits, (480, 480), mode='bilinear', align_corners=False)
    assert torch.equal(one.pred_sem_seg.data, large.sigmoid().argmax(1).byte())
    # where both are 1 in float32 the first wins, though the second logit is larger
    ties = (large.sigmoid() == 1).all(1) & (large[:, 1] > large[:, 0])
    assert ties.sum() > 100 and not one.pred_sem_seg.data[ties].any()
    assert torch.equal(one.gt_sem_seg.data, gt)


def test_rela_on_a_letterboxed_input(sample):
    mask = np.zeros((60, 80), np.float32)
    mask[10:40, 5:30] = 1
    forth, _ = letterbox(60, 80)
    seen = torch.from_numpy(cv2.warpAffine(mask, forth, (SIZE, SIZE)))
    logits = torch.stack((1 - seen, seen))[None] * 8 - 4
    one = sample('a', gt=(60, 80), ori_shape=(60, 80), warp_matrix=forth.tolist())
    apply(ReLAProtocol(size=(240, 480)), logits, one)
    expected = cv2.resize(mask, (480, 240), interpolation=cv2.INTER_LINEAR) > 0.5
    assert iou(one.pred_sem_seg.data[0].numpy() > 0, expected) > 0.93
    assert one.gt_sem_seg.data.shape == (1, 240, 480)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_ties_are_background(sample, protocol):
    one = sample('a', ori_shape=(8, 8))
    logits = torch.full((1, 2, 8, 8), 3.0)  # both channels alike: probability one half
    options = {} if protocol is LAVTProtocol else dict(threshold=0.5)
    apply(protocol(**options), logits, one, (8, 8))
    assert not one.pred_sem_seg.data.any()
    assert (one.seg_logits.data == 0.5).all()


@pytest.mark.parametrize('protocol, threshold', zip(PROTOCOLS, (0.5, 0.35, 0.5)))
def test_thresholds_of_the_publications(sample, protocol, threshold):
    """Foreground in a uniform map begins above the threshold."""
    for probability, expected in ((threshold - 0.01, 0), (threshold + 0.01, 1)):
        one = sample('a', ori_shape=(8, 8))
        logits = torch.full((1, 1, 8, 8), float(torch.logit(torch.tensor(probability))))
        apply(protocol(), logits, one, (8, 8))
        assert (one.pred_sem_seg.data == expected).all()


def test_probabilities_stay_within_0_and_1(sample):
    logits = torch.randn(2, 1, 24, 24) * 20
    one = sample('ab', ori_shape=(50, 70))
    apply(CRISProtocol(), logits, one)
    assert one.seg_logits.data.min() >= 0 and one.seg_logits.data.max() <= 1


@pytest.mark.parametrize('protocol', [OriginalProtocol, CRISProtocol])
def test_a_threshold_beyond_0_and_1_is_refused(protocol):
    with pytest.raises(ValueError, match=rf'{protocol.__name__}: threshold=1.0 is not in \(0, 1\)'):
        protocol(threshold=1.0)


def corner_resize(x, shape):
    """Bilinear from corner to corner, by numpy."""
    ys, xs = (np.linspace(0, n - 1, wanted) for n, wanted in zip(x.shape, shape))
    rows = np.stack([np.interp(xs, np.arange(x.shape[1]), row) for row in x])
    return np.stack([np.interp(ys, np.arange(x.shape[0]), row) for row in rows.T]).T


@pytest.mark.parametrize('response', [True, False])
def test_tris_is_the_published_sequence(sample, response):
    logits = blobs(2, 3, 4)
    one = sample('ab', ori_shape=(50, 70))
    apply(TRISProtocol(response=response, flip_negative=True), logits, one, (96, 128))
    large = F.interpolate(logits, (96, 128), mode='bilinear')[:, 0].numpy()
    for row, found, mask in zip(large, one.seg_logits.data, one.pred_sem_seg.data, strict=True):
        value = corner_resize(np.maximum(row, 0) if response else row, (50, 70))
        value = value / (value.max() + 1e-5)
        np.testing.assert_allclose(found, np.maximum(value, 0), atol=1e-5)
        unsure = np.abs(value) < 1e-5
        assert ((value > 1e-9) == mask.numpy())[~unsure].all()
        assert 0.1 < mask.float().mean() < 0.9


def test_tris_on_negative_logits(sample):
    logits = blobs(1, 3, 4) - 9
    published, ours, response = (sample('a', ori_shape=(50, 70)) for _ in range(3))
    apply(TRISProtocol(response=False, flip_negative=True), logits, published, (96, 128))
    apply(TRISProtocol(response=False), logits, ours, (96, 128))
    apply(TRISProtocol(), logits, response, (96, 128))
    large = F.interpolate(logits, (96, 128), mode='bilinear')[0, 0].numpy()
    value = corner_resize(large, (50, 70))
    # the sign turns: all is foreground, and the least likely pixel is pointed to
    assert published.pred_sem_seg.data.all()
    pointed = value.flat[int(published.seg_logits.data.argmax())]
    assert pointed == pytest.approx(value.min(), abs=1e-4)
    assert not ours.pred_sem_seg.data.any()
    pointed = value.flat[int(ours.seg_logits.data.argmax())]
    assert pointed == pytest.approx(value.max(), abs=1e-4)
    assert not response.pred_sem_seg.data.any() and not response.seg_logits.data.any()
    for one in (published, ours):
        assert 0 <= one.seg_logits.data.min() and one.seg_logits.data.max() <= 1


@pytest.mark.parametrize('way', ['letterbox', 'flip'])
def test_tris_brings_masks_back_to_where_they_were(sample, way):
    mask = np.zeros((60, 80), np.float32)
    mask[10:40, 5:30] = 1
    meta = dict(ori_shape=(60, 80))
    if way == 'letterbox':
        meta['warp_matrix'] = letterbox(60, 80)[0].tolist()
        seen = cv2.warpAffine(mask, np.array(meta['warp_matrix']), (SIZE, SIZE))
    else:
        meta.update(flip=True, flip_direction='horizontal')
        seen = cv2.resize(mask, (SIZE, SIZE))[:, ::-1].copy()
    one = sample('a', **meta)
    apply(TRISProtocol(), torch.from_numpy(seen)[None, None] * 20 - 10, one)
    assert iou(one.pred_sem_seg.data[0].numpy() > 0, mask > 0.5) > 0.93
