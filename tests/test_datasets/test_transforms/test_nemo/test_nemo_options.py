"""What the band, the grid and the fill of a mosaic make of it, pixel by pixel."""

import collections

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from nemo_helpers import mosaic_config, write_bank

from nemo_mmseg.datasets.samplers import SampleIndex

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
SIZE = (96, 128)
# Similarities of every expression to images 1 to 4; item 1 is 'green box' of image 2.
GREEN = [0.76, 0.8, 0.5, 0.3]
# Angles of the image vectors: image 3 looks like image 2 (0.98), image 1 less (0.71), image 4 not.
ANGLES = np.deg2rad([45, 0, 10, 90])


@pytest.fixture
def pictures(mini):
    """The images of `mini` as noise, each its own, of three aspects; so every pixel tells."""
    rng = np.random.default_rng(0)
    sizes = {1: (48, 64), 2: (48, 64), 3: (60, 30), 4: (30, 90), 5: (48, 64)}
    mini.pictures = {}
    for number, (height, width) in sizes.items():
        # In blocks, so that JPEG keeps them well.
        small = rng.integers(0, 256, (height // 6, width // 6 + 1, 3), np.uint8)
        path = str(mini.root / 'images' / f'image_{number}.jpg')
        image = np.kron(small, np.ones((6, 6, 1), np.uint8))[:height, :width]
        cv2.imwrite(path, image, [cv2.IMWRITE_JPEG_QUALITY, 100])
        mini.pictures[f'image_{number}.jpg'] = cv2.imread(path)
    return mini


def build(mini, **settings):
    path = mini.root / 'bank.safetensors'
    mosaic = mosaic_config(
        size=SIZE, transforms=LOAD, mined=1.0, bank=dict(path=str(path)), **settings
    )
    dataset = DATASETS.build(
        mini.config([dict(type='SampleExpressions'), mosaic, dict(type='PackReferringInputs')])
    )
    vectors = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    own = np.full(len(dataset.expressions()[0]), 0.8)
    write_bank(dataset, path, GREEN, own, vectors)
    return dataset


def sample(dataset, epoch, index=1):
    packed = dataset[SampleIndex(index, epoch, 0)]
    canvas = packed['inputs'].numpy().transpose(1, 2, 0)
    mask = packed['data_samples'].gt_sem_seg.data[0].numpy()
    return canvas, mask, packed['data_samples'].mosaic


@pytest.mark.parametrize(
    ('settings', 'numbers'),
    [
        (dict(tau=0.04, tau_mode='margin'), {1, 3, 4}),
        (dict(tau=0.05, tau_mode='margin'), {3, 4}),
        (dict(tau=0.35, tau_mode='margin'), {4}),
        (dict(tau=0, tau_mode='rank'), {1, 3, 4}),
        (dict(tau=2, tau_mode='rank'), {4}),
        (dict(tau=1, tau_mode='rank', top_k=1, cells=(1, 2)), {3}),
        (dict(tau=0.9), {3, 4}),
        (dict(tau=0.9, i2i_sim_thres=0.9), {4}),
        (dict(tau=None, i2i_sim_thres=0.9), {1, 4}),
        (dict(tau=None, i2i_sim_thres=0.9, top_k=1, cells=(1, 2)), {1}),
        (dict(tau=None, i2i_sim_thres=0.5), {4}),
    ],
)
def test_thresholds_choose_the_negatives_from_the_same_bank(mini, settings, numbers):
    dataset = build(mini, **settings)
    for epoch in range(12):
        mosaic = sample(dataset, epoch)[2]
        scores = zip(mosaic['names'], mosaic['similarities'])
        drawn = {int(name[6]) for name, score in scores if not np.isnan(score)}
        wanted = np.prod(settings.get('cells', (2, 2))) - 1
        assert drawn == numbers and mosaic['num_filled'] == wanted - len(numbers)


def test_images_that_look_too_similar_fill_a_cell_only_where_no_other_can(mini):
    # In the band: image 4. Of the others, 1 is above tau and 3 looks like the own image.
    dataset = build(mini, tau=0.9, i2i_sim_thres=0.9, top_k=1, cells=(1, 2), too_few='random')
    assert {sample(dataset, v)[2]['names'][0] for v in range(10)} == {'image_4.jpg'}
    dataset = build(mini, tau=0.9, i2i_sim_thres=-0.5, cells=(1, 2))
    names = {sample(dataset, v)[2]['names'][0] for v in range(30)}
    assert names == {'image_1.jpg', 'image_3.jpg', 'image_4.jpg'}


def expected_canvas(mini, mosaic, target, crop=False):
    """The mosaic by the record of it; of cropped negatives the whole image stands in."""
    (tops, lefts), names = mosaic['edges'], list(mosaic['names'])
    names.insert(mosaic['cell'], target)
    canvas = np.zeros((*SIZE, 3), np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    rows, columns = mosaic['grid']
    for number, name in enumerate(names):
        row, column = divmod(number, columns)
        window = slice(tops[row], tops[row + 1]), slice(lefts[column], lefts[column + 1])
        shape = window[1].stop - window[1].start, window[0].stop - window[0].start
        canvas[window] = cv2.resize(mini.pictures[name], shape)
        if number == mosaic['cell']:
            mask[window] = cv2.resize(mini.masks[102], shape, interpolation=cv2.INTER_NEAREST_EXACT)
            own = window
    return canvas, mask, own


@pytest.mark.parametrize('jitter', [0, 0.5, 'free'])
def test_images_and_mask_fill_the_cells_of_any_grid(pictures, jitter):
    grids = [(2, 2), (3, 3), (1, 2)]
    dataset = build(pictures, cells=grids, jitter=jitter, min_cell=8)
    seen = collections.Counter()
    lines = set()
    for epoch in range(30):
        canvas, mask, mosaic = sample(dataset, epoch)
        expected, expected_mask, _ = expected_canvas(pictures, mosaic, 'image_2.jpg')
        np.testing.assert_array_equal(canvas, expected)
        np.testing.assert_array_equal(mask, expected_mask)
        seen[mosaic['grid']] += 1
        lines.add(mosaic['edges'])
    assert set(seen) == set(grids) and min(seen.values()) > 3
    assert (len(lines) > 20) == (jitter != 0)


def test_position_words_hold_in_every_grid(mini):
    mini.refs[0]['sentences'] = mini.refs[0]['sentences'][:1]  # 'left box'
    dataset = build(mini.write(), cells=[(2, 2), (3, 3)], jitter='free', min_cell=8)
    cells = collections.defaultdict(set)
    for epoch in range(40):
        mosaic = sample(dataset, epoch, index=0)[2]
        cells[mosaic['grid']].add(mosaic['cell'])
    assert cells == {(2, 2): {0, 2}, (3, 3): {0, 3, 6}}


def test_cropped_negatives_keep_their_aspect_and_the_target_is_stretched(pictures):
    stretched, cropped = build(pictures), build(pictures, fit='crop')
    places = collections.defaultdict(set)
    for epoch in range(25):
        canvas, mask, mosaic = sample(cropped, epoch)
        other, other_mask, other_mosaic = sample(stretched, epoch)
        assert mosaic == other_mosaic, 'the same images in the same cells'
        np.testing.assert_array_equal(mask, other_mask)
        _, _, own = expected_canvas(pictures, mosaic, 'image_2.jpg')
        np.testing.assert_array_equal(canvas[own], other[own])
        others = [cell for cell in range(4) if cell != mosaic['cell']]
        for cell, name in zip(others, mosaic['names']):
            top, left = cell // 2 * 48, cell % 2 * 64
            shown = canvas[top : top + 48, left : left + 64]
            # A cell is 3:4. Every part of the image with that aspect and a whole side, tried out.
            image = pictures.pictures[name]
            height = min(image.shape[0], round(image.shape[1] * 3 / 4))
            width = min(image.shape[1], round(image.shape[0] * 4 / 3))
            assert abs(height / width - 3 / 4) < 0.02
            fits = [
                (y, x)
                for y in range(image.shape[0] - height + 1)
                for x in range(image.shape[1] - width + 1)
                if (cv2.resize(image[y : y + height, x : x + width], (64, 48)) == shown).all()
            ]
            assert len(fits) == 1
            places[name].update(fits)
    assert places['image_1.jpg'] == {(0, 0)}  # it has the aspect already
    assert len(places['image_3.jpg']) > 10 and len(places['image_4.jpg']) > 10
    assert {x for _, x in places['image_3.jpg']} == {0}  # a tall image moves up and down


def test_blurred_negatives_leave_the_target_sharp(pictures):
    sharp, blurry = build(pictures), build(pictures, blur=0.1)
    for epoch in range(5):
        canvas, mask, mosaic = sample(blurry, epoch)
        other, other_mask, other_mosaic = sample(sharp, epoch)
        assert mosaic == other_mosaic
        np.testing.assert_array_equal(mask, other_mask)
        _, _, own = expected_canvas(pictures, mosaic, 'image_2.jpg')
        np.testing.assert_array_equal(canvas[own], other[own])
        for cell in set(range(4)) - {mosaic['cell']}:
            window = np.s_[cell // 2 * 48 : cell // 2 * 48 + 48, cell % 2 * 64 : cell % 2 * 64 + 64]
            before, after = other[window].astype(float), canvas[window].astype(float)
            # A Gaussian of 4.8 pixels, by hand: rows, then columns, mirrored at the edge.
            offsets = np.arange(-20, 21)
            weights = np.exp(-(offsets**2) / (2 * 4.8**2))
            weights /= weights.sum()
            expected = np.pad(before, ((20, 20), (20, 20), (0, 0)), mode='reflect')
            for axis in (0, 1):
                expected = np.apply_along_axis(np.convolve, axis, expected, weights, 'valid')
            np.testing.assert_allclose(after, expected, atol=2.5)
            assert after.std() < 0.7 * before.std()


def test_difficulty_rises_over_the_epochs_and_survives_resuming(mini):
    """Easy to hard: the ranking is entered at the third image, then the second, then the first."""
    ramp = dict(type='LinearRamp', begin=0, end=4, first=2, last=0)
    settings = dict(tau=ramp, tau_mode='rank', top_k=1, cells=(1, 2))
    dataset = build(mini, **settings)
    names = [sample(dataset, epoch)[2]['names'][0] for epoch in range(6)]
    # Images dropped: 2, 1.5 (to the even number: 2), 1, 0.5 (0), 0, 0.
    assert [int(name[6]) for name in names] == [4, 4, 3, 1, 1, 1]
    # A resumed run builds its data set anew and goes on in a later epoch.
    again = sample(build(mini, **settings), 3)
    for one, two in zip(sample(dataset, 3), again):
        assert one == two if isinstance(one, dict) else (one == two).all()
