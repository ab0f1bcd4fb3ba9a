"""Segmentations: wrong ones are named before pycocotools sees them, right ones become masks."""

import itertools
import math

import cv2
import numpy as np
import pytest
from mini_refcoco import compressed, uncompressed
from mmseg.registry import DATASETS
from PIL import Image
from pycocotools import mask as coco_mask

from nemo_mmseg.datasets.refer import load_references
from nemo_mmseg.datasets.segmentation import clean_segmentation, decode_segmentation, read_mask
from nemo_mmseg.utils.faults import DataError

SIZE = [48, 64]
BOX = [4, 3, 24, 3, 24, 18, 4, 18]
MASK = np.zeros(SIZE, np.uint8)
MASK[3:18, 4:24] = 1
RLE = compressed(MASK)

WRONG = [
    # no segmentation
    *[None, 7, 1.5, 'mask', True, {}, {'a': 1}, [None], [7], ['a'], [True], [[], 7], [[BOX]]],
    *[[RLE, BOX], [BOX, RLE], [BOX, None], [RLE, None]],
    # polygons
    *[BOX, [[*BOX, 5]], [[*BOX[:-1], '18']], [[*BOX[:-1], None]], [[*BOX[:-1], True]]],
    *[[[*BOX[:-1], bad]] for bad in (math.nan, math.inf, -math.inf, 2e8, 1e30, -1e30, 97, -49)],
    *[[[bad, *BOX[1:]]] for bad in (math.nan, math.inf, 2**70, 129, -65)],
    *[[BOX, [1, 2, math.nan, 4]], [BOX, [1, 2, 3]], [[*BOX[:4], math.nan, 1e30, *BOX[4:]]]],
    # runs
    *[dict(RLE, size=size) for size in (None, 48, [48], [64, 48], [48.0, 64], ['48', 64], [])],
    *[dict(RLE, counts=bad) for bad in (None, 7, {}, '', 'a', '~~~', 'ü', '\ud800', '0' * 9)],
    dict(size=SIZE),
    *[
        dict(size=SIZE, counts=bad)
        for bad in ([3073], [0, 3071], [-1, 3073], [0.0, 3072.0], ['0', 3072], [0, None], [True],
                    [1, math.nan, 3071], [[3072]], [2**63, 3072], [3072, 1])
    ],
    [dict(RLE, size=[64, 48])],
    [RLE, dict(RLE, counts='a')],
    # empty
    *[[], [[]], [[1, 2, 3, 4]], [[1, 2], []], dict(size=SIZE, counts=[3072])],
    [dict(size=SIZE, counts=[3072, 0])],
]  # fmt: skip


@pytest.mark.parametrize('segmentation', WRONG, ids=lambda value: ascii(value)[:40])
def test_a_wrong_segmentation_is_named(segmentation):
    with pytest.raises(DataError, match='annotation 5: .*segmentation .*; allowed: ') as error:
        clean_segmentation(segmentation, *SIZE, 'instances.json: annotation 5')
    assert len(str(error.value)) < 400
    with pytest.raises(DataError):
        decode_segmentation(segmentation, *SIZE)


def test_it_is_named_when_the_data_set_is_built(mini):
    def build():
        folder = mini.write().root / 'mini'
        return load_references(str(folder / 'refs(unc).p'), str(folder / 'instances.json'), 'train')

    del mini.instances['annotations'][1]['segmentation']
    with pytest.raises(DataError, match='annotation 102: segmentation is missing'):
        build()
    mini.instances['annotations'][1]['segmentation'] = BOX
    with pytest.raises(DataError, match='instances.json: annotation 102: segmentation is .4, 3, 2'):
        build()


def test_polygons_may_leave_the_image_by_its_size():
    outside = [[-64, -48, 128, -48, 128, 96, -64, 96]]
    assert clean_segmentation(outside, *SIZE) == outside
    assert decode_segmentation(outside, *SIZE).all()


def test_degenerate_polygons_are_left_out():
    assert clean_segmentation([[1, 2], BOX, [], [1, 2, 3, 4]], *SIZE) == [BOX]


def test_an_outline_that_is_too_long_is_refused():
    to_and_fro = [0, 0, 8000, 8000] * 400
    with pytest.raises(DataError, match='outline of segmentation is 6400000'):
        clean_segmentation([to_and_fro], 8000, 8000)
    assert clean_segmentation([to_and_fro[:800]], 8000, 8000)
    with pytest.raises(DataError, match='at most 1000 polygons'):
        clean_segmentation([BOX] * 1001, *SIZE)


@pytest.mark.parametrize('points', [[5, 5] * 70_000, dict(size=[*SIZE], counts=[0] * 140_000)])
def test_points_that_do_not_move_and_empty_runs_are_too_many(points):
    segmentation = points if isinstance(points, dict) else [points]
    with pytest.raises(DataError, match='at most 131072 numbers'):
        clean_segmentation(segmentation, *SIZE)


def test_no_mask_is_drawn_of_a_size_that_no_image_has():
    with pytest.raises(DataError, match='the size of the image .* at most 89478485 pixels'):
        decode_segmentation([BOX], 32_000, 32_000)


def read_runs(text):
    """COCO's run lengths, decoded character by character; None if the last number is cut."""
    numbers, value, place = [], 0, 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << place
        place += 5
        if not code & 32:
            value -= (1 << place) if code & 16 else 0
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value, place = 0, 0
    return None if place else numbers


def test_a_damaged_rle_is_refused_or_means_what_its_runs_say():
    rng = np.random.default_rng(0)
    characters = [chr(code) for code in range(48, 112)]
    right = refused = 0
    for number in range(600):
        mask = rng.random((13, 17)) < rng.random()
        text = list(compressed_text(mask))
        if number % 3 == 1:
            text[rng.integers(len(text))] = str(rng.choice(characters))
        elif number % 3 == 2:
            text = text[: rng.integers(len(text))]
        rle = dict(size=[13, 17], counts=''.join(text))
        runs = read_runs(rle['counts'])
        if runs and min(runs) >= 0 and sum(runs) == 13 * 17 and sum(runs[1::2]):
            expected = np.repeat(np.arange(len(runs)) % 2, runs).reshape(17, 13).T
            np.testing.assert_array_equal(decode_segmentation(rle, 13, 17), expected)
            right += 1
        else:
            with pytest.raises(DataError):
                decode_segmentation(rle, 13, 17)
            refused += 1
    assert right > 200 and refused > 200


def compressed_text(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))['counts'].decode()


@pytest.mark.parametrize('kinds', itertools.product((compressed, uncompressed), repeat=2))
def test_a_list_of_rles_is_their_union(mini, kinds):
    # RRSIS-D and RefCLEF have such lists.
    masks = mini.masks[102], mini.masks[105]
    segmentation = [kind(mask) for kind, mask in zip(kinds, masks)]
    union = np.maximum(*masks)
    np.testing.assert_array_equal(decode_segmentation(segmentation, *SIZE), union)
    np.testing.assert_array_equal(decode_segmentation(segmentation[:1], *SIZE), masks[0])
    mini.instances['annotations'][1]['segmentation'] = segmentation
    dataset = DATASETS.build(mini.write().config([dict(type='LoadReferentMask')]))
    np.testing.assert_array_equal(dataset[1]['gt_seg_map'], union)


def saved(path, pixels, mode='L', **kwargs):
    Image.fromarray(pixels).convert(mode).save(path, **kwargs)
    return str(path)


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB'])
def test_a_mask_may_be_a_png_of_one_bit_grey_with_a_palette_or_in_colour(tmp_path, mode):
    path = saved(tmp_path / 'x.png', 255 * MASK, mode)
    np.testing.assert_array_equal(read_mask(path, *SIZE), MASK)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_colours_of_a_palette_that_are_not_black_are_the_object(tmp_path, bits):
    image = Image.fromarray(MASK, 'L')
    image.putpalette([0, 0, 0, 0, 0, 9])
    image.save(tmp_path / 'x.png', bits=bits)
    np.testing.assert_array_equal(read_mask(str(tmp_path / 'x.png'), *SIZE), MASK)


def test_files_in_which_black_is_not_the_rest_are_no_masks(tmp_path):
    shape = np.dstack([np.full((*SIZE, 3), 255, np.uint8), 255 * MASK])
    low = Image.fromarray(MASK.astype(np.uint16))
    low.save(tmp_path / 'low.png')
    cv2.imwrite(str(tmp_path / 'color.png'), np.dstack(3 * [MASK.astype(np.uint16)]))
    files = {
        saved(tmp_path / 'x.jpg', 255 * MASK): 'no PNG',
        saved(tmp_path / 'x.bmp', 255 * MASK): 'no PNG',
        saved(tmp_path / 'alpha.png', shape, 'RGBA'): 'a PNG with alpha',
        saved(tmp_path / 'grey.png', shape, 'LA'): 'a PNG with alpha',
        saved(tmp_path / 'clear.png', 255 * MASK, 'P', transparency=0): 'a PNG with alpha',
        str(tmp_path / 'low.png'): 'a PNG of 16 bits',
        str(tmp_path / 'color.png'): 'a PNG of 16 bits',
    }
    (tmp_path / 'empty.png').write_bytes(b'')
    files[str(tmp_path / 'empty.png')] = 'no PNG'
    for path, found in files.items():
        with pytest.raises(ValueError) as caught:
            read_mask(path, *SIZE)
        assert str(caught.value).startswith(f'the mask {path} is {found}; allowed: a PNG, 8 bits, ')


def test_the_three_kinds_are_the_same_mask():
    for segmentation in ([BOX], RLE, uncompressed(MASK)):
        found = decode_segmentation(segmentation, *SIZE)
        np.testing.assert_array_equal(found, MASK)
        assert found.dtype == np.uint8 and found.flags.c_contiguous
