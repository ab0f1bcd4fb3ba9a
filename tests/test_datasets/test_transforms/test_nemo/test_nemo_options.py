"""NeMoMosaic's later options: difficulty, grids, how negatives fill their cells, ramps."""

import collections

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS, TRANSFORMS

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.mining.bank_writer import BankWriter

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
    mosaic = dict(type='NeMoMosaic', size=SIZE, transforms=LOAD, mined_prob=1.0)
    mosaic.update(bank=dict(path=str(path)), **settings)
    dataset = DATASETS.build(
        mini.config([dict(type='SampleExpressions'), mosaic, dict(type='PackReferringInputs')])
    )
    sent_ids, _, own_rows = dataset.expressions()
    every, pool = np.arange(len(own_rows)), dataset.pool
    others = np.tile(GREEN, (len(every), 1))
    others[every, own_rows] = -1
    order = np.argsort(-others, axis=1)[:, :3]
    vectors = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    with BankWriter(
        path, sent_ids, own_rows, pool.ids, list(pool.names), vectors, 3,
        dict(fingerprint=dataset.fingerprint, dataset='mini', split='train'),
    ) as writer:  # fmt: skip
        own = np.full(len(every), 0.8)
        writer.write(every, order, np.take_along_axis(others, order, axis=1), own)
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
        (dict(tau=1, tau_mode='rank', top_k=1, grid=(1, 2)), {3}),
        (dict(tau=0.9), {3, 4}),
        (dict(tau=0.9, i2i_sim_thres=0.9), {4}),
        (dict(tau=None, i2i_sim_thres=0.9), {1, 4}),
        (dict(tau=None, i2i_sim_thres=0.9, top_k=1, grid=(1, 2)), {1}),
        (dict(tau=None, i2i_sim_thres=0.5), {4}),
    ],
)
def test_thresholds_choose_the_negatives_from_the_same_bank(mini, settings, numbers):
    dataset = build(mini, **settings)
    for epoch in range(12):
        mosaic = sample(dataset, epoch)[2]
        scores = zip(mosaic['names'], mosaic['similarities'])
        drawn = {int(name[6]) for name, score in scores if not np.isnan(score)}
        wanted = np.prod(settings.get('grid', (2, 2))) - 1
        assert drawn == numbers and mosaic['num_filled'] == wanted - len(numbers)


def test_images_that_look_too_similar_fill_a_cell_only_where_no_other_can(mini):
    # In the band: image 4. Of the others, 1 is above tau and 3 looks like the own image.
    dataset = build(mini, tau=0.9, i2i_sim_thres=0.9, top_k=1, grid=(1, 2), short_band='random')
    assert {sample(dataset, v)[2]['names'][0] for v in range(10)} == {'image_4.jpg'}
    dataset = build(mini, tau=0.9, i2i_sim_thres=-0.5, grid=(1, 2))
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


@pytest.mark.parametrize('crossing', ['fixed', 0.5, 'free'])
def test_images_and_mask_fill_the_cells_of_any_grid(pictures, crossing):
    grids = [(2, 2), (3, 3), (1, 2)]
    dataset = build(pictures, grid=grids, crossing=crossing, min_cell=8)
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
    assert (len(lines) > 20) == (crossing != 'fixed')


def test_position_words_hold_in_every_grid(mini):
    mini.refs[0]['sentences'] = mini.refs[0]['sentences'][:1]  # 'left box'
    dataset = build(mini.write(), grid=[(2, 2), (3, 3)], crossing='free', min_cell=8)
    cells = collections.defaultdict(set)
    for epoch in range(40):
        mosaic = sample(dataset, epoch, index=0)[2]
        cells[mosaic['grid']].add(mosaic['cell'])
    assert cells == {(2, 2): {0, 2}, (3, 3): {0, 3, 6}}


def test_cropped_negatives_keep_their_aspect_and_the_target_is_stretched(pictures):
    stretched, cropped = build(pictures), build(pictures, negative_fit='crop')
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
    sharp, blurry = build(pictures), build(pictures, negative_blur=0.1)
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


def ramp(first, last, begin=0, end=4):
    return dict(type='LinearRamp', begin=begin, end=end, first=first, last=last)


def transform(**settings):
    return TRANSFORMS.build(
        {
            **dict(type='NeMoMosaic', size=SIZE, transforms=[], bank=dict(path='x', keep=50)),
            **settings,
        }
    )


def test_probabilities_rise_over_the_passes():
    mosaic = transform(
        warmup_prob=ramp(0, 0.4, 0, 2), mined_prob=ramp(0, 0.8, 2, 6),
        random_prob=dict(type='StepRamp', milestones=[5], values=[0.2, 0.1]), start_epoch=3,
    )  # fmt: skip
    draws = np.linspace(0, 1, 1000, endpoint=False)
    expected = [(0, 0), (0.2, 0), (0.4, 0), (0.2, 0.2), (0.2, 0.4), (0.1, 0.6), (0.1, 0.8)]
    for epoch, (drawn, mined) in enumerate(expected):
        counts = collections.Counter(mosaic.schedule.kind_at(epoch, draw) for draw in draws)
        assert counts['random'] == pytest.approx(1000 * drawn, abs=1)
        assert counts['mined'] == pytest.approx(1000 * mined, abs=1)


def test_difficulty_rises_over_the_passes_and_survives_resuming(mini):
    """Easy to hard: the ranking is entered at the third image, then the second, then the first."""
    settings = dict(tau=ramp(2, 0, 0, 4), tau_mode='rank', top_k=1, grid=(1, 2))
    dataset = build(mini, **settings)
    names = [sample(dataset, epoch)[2]['names'][0] for epoch in range(6)]
    # Images dropped: 2, 1.5 (to the even number: 2), 1, 0.5 (0), 0, 0.
    assert [int(name[6]) for name in names] == [4, 4, 3, 1, 1, 1]
    # A resumed run builds its data set anew and goes on in a later pass.
    again = sample(build(mini, **settings), 3)
    for one, two in zip(sample(dataset, 3), again):
        assert one == two if isinstance(one, dict) else (one == two).all()


def test_the_bands_to_be_checked_are_those_of_all_stages():
    rules = transform(
        tau=ramp(0.8, 0.95, 1, 5), top_k=dict(type='StepRamp', milestones=[3], values=[90, 30])
    ).band_rules()
    assert [(round(rule.tau, 4), rule.top_k) for rule in rules] == [
        (0.8, 90), (0.8375, 90), (0.875, 30), (0.9125, 30), (0.95, 30),
    ]  # fmt: skip
    assert len(transform().band_rules()) == 1


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(warmup_prob=0.5), 'none'),
        (dict(start_epoch=-1), 'start_epoch=-1'),
        (dict(start_epoch='5'), 'start_epoch=5'),
        (dict(tau='0.9'), "tau='0.9' is neither a number nor a ramp"),
        (dict(tau=float('nan')), 'tau=nan is neither'),
        (dict(mined_prob=None), 'mined_prob=None is neither'),
        (dict(top_k=[10, 60]), r'top_k=\[10, 60\] is neither'),
        (dict(bank='bank.safetensors'), "bank='bank.safetensors' must be dict"),
        (dict(bank=dict(path='x', keep='9')), "keep='9'"),
        (dict(bank=dict(path='x', keep=0)), 'keep=0'),
        (dict(negative_blur='strong'), 'negative_blur=strong'),
        (dict(warmup_prob=ramp(0, 0.5, 0, 6), start_epoch=5), 'before start_epoch=5'),
        (
            dict(warmup_prob=dict(type='StepRamp', milestones=[5], values=[0, 1]), start_epoch=5),
            'before start_epoch=5',
        ),
        *(
            (dict(short_band=short, **settings), message)
            for short in ('plain', 'random')
            for settings, message in [
                (dict(top_k=7, grid=(3, 3)), 'needs 8 mined negatives.*top_k=7.*than 7'),
                (dict(top_k=ramp(10, 2)), 'top_k=2 with keep=50 never gives more than 2'),
                (dict(top_k=1), 'needs 3 mined negatives.*more than 1'),
                (dict(bank=dict(path='x', keep=2)), 'keep=2 never gives more than 2'),
                (dict(tau=48, tau_mode='rank'), 'never gives more than 2'),
            ]
        ),
        (
            dict(top_k=7, grid=[(2, 2), (3, 3)], short_band='plain'),
            'needs 8 mined negatives.*top_k=7.*than 7',
        ),
        *(
            (dict(start_epoch=start, **{name: value}), rf'{name}=.* is over before start_epoch=')
            for name, first, last in [
                ('mined_prob', 0.0, 0.5),
                ('random_prob', 0.0, 0.5),
                ('tau', 0.8, 0.95),
                ('top_k', 90, 60),
                ('i2i_sim_thres', 0.9, 0.8),
            ]
            for start, value in [
                (4, ramp(first, last, 0, 4)),
                (5, ramp(first, last, 0, 4)),
                (4, dict(type='StepRamp', milestones=[2, 4], values=[first, first, last])),
            ]
        ),
        (dict(mined_prob=ramp(0, 1.2)), r'mined_prob=1.2 in pass 4'),
        (dict(mined_prob=ramp(0.2, 0.9), random_prob=0.2), r'random_prob=0.2 .* pass 4.*at most 1'),
        (
            dict(
                mined_prob=ramp(0, 0.9, 0, 10),
                random_prob=dict(type='StepRamp', milestones=[8], values=[0.4, 0.0]),
            ),
            'in pass 7.*at most 1',
        ),
        (dict(mined_prob=ramp(0, 1, 4, 2)), 'end must come after begin'),
        (dict(tau=ramp(1.0, 0.0)), 'tau=0.0 must be positive'),
        (dict(tau=ramp(60, 10), tau_mode='rank'), 'skips all of the keep=50'),
        (dict(tau=0.9, tau_mode='rank'), 'counts images'),
        (dict(tau=None), 'tau=None needs i2i_sim_thres'),
        (dict(top_k=ramp(10, 0)), 'top_k=0'),
        (dict(i2i_sim_thres=2), 'i2i_sim_thres=2'),
        (dict(grid=[(2, 2), (1, 1)]), 'two or more cells'),
        (dict(grid_probs=[1.0]), 'list of as many grids'),
        (dict(crossing='free', min_cell=60), 'min_cell=60'),
        (dict(negative_fit='pad'), 'negative_fit'),
        (dict(negative_blur=-0.1), 'negative_blur=-0.1'),
    ],
)
def test_options_that_contradict_one_another_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        transform(**settings)


def test_the_same_sums_are_allowed_in_passes_that_do_not_meet():
    transform(
        mined_prob=ramp(0, 0.9, 0, 10),
        random_prob=dict(type='StepRamp', milestones=[2], values=[0.7, 0.1]),
    )
    transform(warmup_prob=ramp(0, 0.5, 0, 5), start_epoch=5)
    # Before start_epoch neither counts.
    transform(random_prob=ramp(0.9, 0.2, 0, 6), mined_prob=0.6, start_epoch=5, warmup_prob=0.9)


def test_bands_that_are_never_drawn_from_may_be_small():
    steps = dict(type='StepRamp', milestones=[5])
    transform(mined_prob=dict(steps, values=[0, 0.5]), top_k=dict(steps, values=[1, 60]))
    with pytest.raises(ValueError, match='top_k=1'):
        transform(mined_prob=dict(steps, values=[0.1, 0.5]), top_k=dict(steps, values=[1, 60]))
    # Random images fill the larger grid only.
    transform(grid=[(2, 2), (3, 3)], top_k=5)


def test_bands_that_can_fill_a_mosaic_and_ramps_that_act_are_allowed():
    for short in ('plain', 'random'):
        transform(short_band=short, top_k=8, grid=(3, 3))
        transform(short_band=short, top_k=3, bank=dict(path='x', keep=3))
        transform(short_band=short, tau=47, tau_mode='rank')
        transform(short_band=short, tau=None, tau_mode='rank', i2i_sim_thres=0.9)
    # A grid that is never drawn needs no negatives, nor does a mosaic of random ones.
    transform(top_k=3, grid=[(2, 2), (3, 3)], grid_probs=[1, 0])
    transform(top_k=1, mined_prob=0.0, random_prob=0.5)
    transform(tau=1.05)
    # Its last step is at the pass at which it is used.
    transform(mined_prob=ramp(0, 0.5, 0, 5), start_epoch=4)
    transform(mined_prob=dict(type='StepRamp', milestones=[5], values=[0.1, 0.5]), start_epoch=4)


def test_a_training_that_is_over_too_soon_is_refused():
    mosaic = transform(tau=ramp(0.8, 0.95, 2, 10))
    mosaic.check_passes(10)
    with pytest.raises(ValueError, match='tau=.*does not reach its last value in the 9 passes'):
        mosaic.check_passes(9)
    with pytest.raises(ValueError, match='start_epoch=4, but this training makes 4 passes'):
        transform(start_epoch=4).check_passes(4)
    transform(start_epoch=4, mined_prob=0).check_passes(4)


def test_the_repr_names_the_options():
    text = repr(transform(grid=[(2, 2), (3, 3)], tau=ramp(0.8, 0.9), negative_blur=0.1))
    for part in ('grid=[(2, 2), (3, 3)]', 'LinearRamp(begin=0', 'negative_blur=0.1', 'crossing='):
        assert part in text
