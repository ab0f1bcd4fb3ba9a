"""Letterbox and flip, against NumPy and values by hand."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.transforms.geometry import letterbox_matrix, swap_sides

init_default_scope('mmseg')


def sample(height=40, width=60):
    rng = np.random.default_rng(0)
    mask = np.zeros((height, width), np.uint8)
    mask[10:30, 20:50] = 1
    return dict(
        img=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        gt_seg_map=mask,
        seg_fields=['gt_seg_map'],
        expressions=['left box'],
        rng=np.random.default_rng(1),
    )


@pytest.mark.parametrize(('height', 'width'), [(40, 60), (60, 40), (33, 97)])
def test_letterbox_matrix_is_the_published_map(height, width):
    matrix = letterbox_matrix(height, width, (416, 416))
    scale = min(416 / height, 416 / width)
    left, top = (416 - scale * width) / 2, (416 - scale * height) / 2
    # The three corners that CRIS fits its affine map to.
    for corner, place in [
        ((0, 0), (left, top)),
        ((width, 0), (left + scale * width, top)),
        ((0, height), (left, top + scale * height)),
    ]:
        np.testing.assert_allclose(matrix @ (*corner, 1), place)


def test_letterbox_keeps_the_aspect_and_fills_the_border():
    results = TRANSFORMS.build(dict(type='Letterbox', size=(120, 120), pad_val=(1, 2, 3)))(sample())
    assert results['img'].shape == (120, 120, 3) and results['img_shape'] == (120, 120)
    assert (results['img'][:15] == (1, 2, 3)).all() and (results['img'][-15:] == (1, 2, 3)).all()
    # Twice the size, 20 rows down: the rectangle is where the map puts it.
    expected = np.zeros((120, 120), np.uint8)
    expected[20 + 20 : 20 + 60, 40:100] = 1
    wrong = results['gt_seg_map'] != expected
    assert wrong.sum() <= 2 * (40 + 60)  # at most the outline, where half a pixel decides
    assert results['warp_matrix'] == [[2.0, 0.0, 0.0], [0.0, 2.0, 20.0]]


def test_letterbox_of_equal_size_changes_nothing_and_takes_several_masks():
    results = sample()
    masks = np.stack([results['gt_seg_map'], 1 - results['gt_seg_map']], axis=-1)
    image = results['img'].copy()
    results['gt_seg_map'] = masks
    results = TRANSFORMS.build(dict(type='Letterbox', size=(40, 60)))(results)
    np.testing.assert_array_equal(results['img'], image)
    np.testing.assert_array_equal(results['gt_seg_map'], masks)


def test_letterbox_refuses_an_unknown_interpolation():
    with pytest.raises(ValueError, match="interpolation='x' is none of .*'bilinear'"):
        TRANSFORMS.build(dict(type='Letterbox', size=(5, 5), interpolation='x'))


SWAPS = {
    'left man': 'right man',
    'the Right one on the left': 'the Left one on the right',
    'leftmost cup': 'rightmost cup',
    'left-hand side': 'right-hand side',
    'lefty, brighter, alright, copyright': 'lefty, brighter, alright, copyright',
    'topleft kite, farRight, leftside': 'topright kite, farLeft, rightside',
    'upright leftover': 'upright leftover',
    'lhs bear': None,
    'a man': 'a man',
    "guy at 3 o'clock": None,
    'the chair right behind her': None,
    'right next to the car': None,
    'l chair': None,
}


@pytest.mark.parametrize(('text', 'mirrored'), SWAPS.items())
def test_swap_sides(text, mirrored):
    assert swap_sides(text) == mirrored
    if mirrored is not None:
        assert swap_sides(mirrored) == text


def test_flip_mirrors_image_mask_and_expression_together():
    before = sample()
    before['warp_matrix'] = [[2.0, 0.0, 5.0], [0.0, 2.0, 7.0]]
    image, mask = before['img'].copy(), before['gt_seg_map'].copy()
    after = TRANSFORMS.build(dict(type='ReferringFlip', prob=1.0))(before)
    np.testing.assert_array_equal(after['img'], np.fliplr(image))
    np.testing.assert_array_equal(after['gt_seg_map'], np.fliplr(mask))
    assert after['expressions'] == ['right box'] and after['flip']
    # Test protocols apply `flip` after the matrix.
    assert after['flip_direction'] == 'horizontal'
    assert after['warp_matrix'] == [[2.0, 0.0, 5.0], [0.0, 2.0, 7.0]]


@pytest.mark.parametrize(
    ('text', 'settings', 'flips'),
    [
        ("3 o'clock", dict(prob=1.0), False),
        ('left box', dict(prob=1.0, swap=False), False),
        ('red box', dict(prob=1.0, swap=False), True),
        ('red box', dict(prob=0.0), False),
    ],
)
def test_flip_or_nothing(text, settings, flips):
    before = sample()
    before['expressions'] = [text]
    image = before['img'].copy()
    after = TRANSFORMS.build(dict(type='ReferringFlip', **settings))(before)
    assert after['flip'] is flips and after['expressions'] == [text]
    np.testing.assert_array_equal(after['img'], np.fliplr(image) if flips else image)


@pytest.mark.parametrize(
    'config',
    [
        dict(type='SampleExpressions', num=3),
        dict(type='LoadReferentMask'),
        dict(type='Letterbox', size=(3, 5)),
        dict(type='ReferringFlip', prob=0.25),
        dict(type='PackReferringInputs'),
    ],
)
def test_repr_names_the_arguments(config):
    text = repr(TRANSFORMS.build(dict(config)))
    assert text.startswith(config['type'])
    for key, value in config.items():
        assert key == 'type' or f'{key}={value}' in text
