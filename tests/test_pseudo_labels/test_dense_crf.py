"""The lattice filters as its definition, written out in loops, says; the CRF cleans masks."""

import itertools
import sys

import numpy as np
import pytest

from nemo_mmseg.pseudo_labels.confidence import ConfidenceSettings, confidence_labels
from nemo_mmseg.pseudo_labels.dense_crf import CRFSettings, DenseCRF, make_crf
from nemo_mmseg.pseudo_labels.permutohedral import PermutohedralLattice


def corners_of(feature):
    """The corners of the simplex around a point, and its barycentric weights, by search.

    Corners are integer points whose coordinates sum to 0 and leave the same remainder.
    """
    dim = len(feature)
    scale = np.sqrt(2 / 3) * (dim + 1) / np.sqrt([(i + 1) * (i + 2) for i in range(dim)])
    elevated = np.zeros(dim + 1)
    for i, value in enumerate(feature * scale):
        elevated[: i + 1] += value
        elevated[i + 1] -= (i + 1) * value
    # The simplex is that of the multiples of d + 1 within reach whose barycentric weights are all
    # positive; corner k is k steps up, of which the k lowest coordinates go d + 1 back.
    near = [(np.floor(e / (dim + 1)), np.ceil(e / (dim + 1))) for e in elevated]
    for multiples in itertools.product(*near):
        origin = np.array(multiples) * (dim + 1)
        if origin.sum() != 0:
            continue
        order = np.argsort(-(elevated - origin), kind='stable')
        corners = []
        for k in range(dim + 1):
            corner = origin + k
            corner[order[dim + 1 - k :]] -= dim + 1
            corners.append(corner)
        matrix = np.vstack([np.array(corners).T, np.ones(dim + 1)])
        weights = np.linalg.lstsq(matrix, np.append(elevated, 1), rcond=None)[0]
        if (weights > -1e-9).all():
            return [tuple(map(int, corner)) for corner in corners], weights
    raise AssertionError('no simplex')


def filtered_by_hand(features, values):
    dim = features.shape[1]
    points = [corners_of(feature) for feature in features]
    table = {}
    for (corners, weights), value in zip(points, values):
        for corner, weight in zip(corners, weights):
            table[corner] = table.get(corner, 0) + weight * value
    for axis in range(dim + 1):
        step = np.ones(dim + 1, int)
        step[axis] = -dim
        table = {
            corner: value
            + 0.5 * table.get(tuple(map(int, corner + step)), 0)
            + 0.5 * table.get(tuple(map(int, corner - step)), 0)
            for corner, value in table.items()
        }
    scale = 1 / (1 + 2.0**-dim)
    return [scale * sum(weight * table[corner] for corner, weight in zip(*one)) for one in points]


@pytest.mark.parametrize('dim', [1, 2, 5])
def test_the_lattice_is_that_of_its_definition(dim):
    rng = np.random.default_rng(dim)
    features, values = rng.normal(0, 1.5, (40, dim)), rng.random((40, 2)).astype(np.float32)
    ours = PermutohedralLattice(features).filter(values)
    np.testing.assert_allclose(ours, filtered_by_hand(features, values), rtol=1e-5, atol=1e-6)


def image_with_mask(seed=0):
    """Two colours that meet at a vertical edge, and a noisy mask of the left one."""
    rng = np.random.default_rng(seed)
    image = np.full((24, 30, 3), (60, 90, 120), np.uint8)
    image[:, 14:] = (180, 60, 40)
    image += rng.integers(0, 8, image.shape, dtype=np.uint8)
    left = np.zeros(image.shape[:2], np.uint8)
    left[:, :14] = 1
    mask = left ^ (rng.random(left.shape) < 0.2)
    return image, left, mask.astype(np.uint8)


def exact_labels(image, mask, steps=10):
    """The mean field with all pairs of pixels."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    xy, rgb = np.stack([x, y], -1).reshape(-1, 2), image.reshape(-1, 3).astype(float)

    def kernel(features):
        squares = ((features[:, None] - features[None]) ** 2).sum(-1)
        matrix = np.exp(-squares / 2)
        norm = np.sqrt(matrix.sum(1))
        return matrix / norm[:, None] / norm[None]

    field = 3 * kernel(xy / 3) + 10 * kernel(np.hstack([xy / 50, rgb / 5]))
    certain = np.log(np.where(mask.ravel() == np.arange(2)[:, None], 0.7, 0.3))
    q = np.exp(certain)
    for _ in range(steps):
        logits = certain + q @ field
        q = np.exp(logits - logits.max(0))
        q /= q.sum(0)
    return q.argmax(0).reshape(mask.shape)


def test_masks_snap_to_the_edge_of_the_image():
    image, left, mask = image_with_mask()
    assert (mask != left).mean() > 0.15
    crf = DenseCRF(image)
    refined = crf.refine(np.stack([mask, 1 - mask]))
    np.testing.assert_array_equal(refined[0], left)
    np.testing.assert_array_equal(refined[1], 1 - left)
    assert (refined[0] != exact_labels(image, mask)).mean() < 0.025


def test_masks_do_not_depend_on_their_company():
    image, _, mask = image_with_mask()
    crf = DenseCRF(image)
    alone = crf.probabilities(mask[None])[0]
    together = crf.probabilities(np.stack([np.zeros_like(mask), mask]))[1]
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_labels_are_certain_or_unknown():
    image, left, _ = image_with_mask()
    response = np.where(left, 0.2, 0).astype(np.float32)
    response[:, :6] = 0.9
    strict = CRFSettings(steps=0)
    labels = confidence_labels(image, response[None], ConfidenceSettings(crf=strict))[0]
    expected = np.zeros((24, 30), np.uint8)
    expected[:, :14], expected[:, :6] = 255, 1
    np.testing.assert_array_equal(labels, expected)
    # a response that is as large as the threshold is background
    at = np.full((1, 24, 30), 0.1, np.float32)
    assert not confidence_labels(image, at, ConfidenceSettings(crf=strict)).any()


@pytest.mark.parametrize('thresholds', [(0.1, 0.3), (1.0, 0.1), (0.3, -0.1)])
def test_thresholds_have_an_order(thresholds):
    with pytest.raises(ValueError, match='0 <= background <= foreground < 1, not'):
        ConfidenceSettings(*thresholds)


def test_the_library_gives_the_same_labels():
    pytest.importorskip('pydensecrf')
    image, _, mask = image_with_mask(1)
    theirs = make_crf(image, CRFSettings(), 'pydensecrf').refine(mask[None])
    np.testing.assert_array_equal(DenseCRF(image).refine(mask[None]), theirs)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pydensecrf.densecrf', None)
    image, _, _ = image_with_mask()
    with pytest.raises(ImportError, match='pip install pydensecrf2'):
        make_crf(image, CRFSettings(), 'pydensecrf')
    with pytest.raises(ValueError, match="not 'opencv'"):
        make_crf(image, CRFSettings(), 'opencv')
