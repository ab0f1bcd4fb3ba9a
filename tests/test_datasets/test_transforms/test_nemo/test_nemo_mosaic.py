"""NeMoMosaic: what it plans, what it draws, and what it refuses."""

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS, TRANSFORMS
from nemo_helpers import mosaic_config, write_bank

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.negatives.bank import BankError

LOAD = [
    dict(type='LoadReferringImage'),
    dict(type='LoadReferentMask'),
    dict(type='Resize', scale=(64, 48), keep_ratio=False),
]


def mined(mini, path, **settings):
    mosaic = mosaic_config(transforms=LOAD, bank=dict(path=str(path)), mined=1.0, **settings)
    return DATASETS.build(
        mini.config([dict(type='SampleExpressions'), mosaic, dict(type='PackReferringInputs')])
    )


def mosaics(dataset, index, number=40):
    return [dataset[SampleIndex(index, v, 0)]['data_samples'].mosaic for v in range(number)]


# Similarities of 'green box' (image_2, row 1) to the four images: own 0.8, others 0.76, 0.5, 0.3.
GREEN = [0.76, 0.8, 0.5, 0.3]


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        # Relative: above 0.9 * 0.8 = 0.72 is dropped, so image_1 never shows by itself.
        (dict(tau=0.9, top_k=3), {'image_3.jpg': 0.5, 'image_4.jpg': 0.3}),
        (dict(tau=0.9, top_k=1, cells=(1, 2)), {'image_3.jpg': 0.5}),
        (dict(tau=0.96, top_k=1, cells=(1, 2)), {'image_1.jpg': 0.76}),
        (dict(tau=0.96, top_k=2, cells=(1, 3)), {'image_1.jpg': 0.76, 'image_3.jpg': 0.5}),
        # Absolute, as published.
        (dict(tau=0.4, tau_mode='absolute', top_k=5), {'image_4.jpg': 0.3}),
        (dict(tau=0.1, tau_mode='absolute', top_k=5), {}),
    ],
)
def test_negatives_come_from_the_band_and_random_images_fill_up(mini, settings, expected):
    path = mini.root / f'bank_{hash(str(settings))}.safetensors'
    dataset = mined(mini, path, **settings)
    write_bank(dataset, path, GREEN)
    for mosaic in mosaics(dataset, 1):
        assert mosaic['kind'] == 'mined' and 'image_2.jpg' not in mosaic['names']
        scores = dict(zip(mosaic['names'], mosaic['similarities']))
        of_band = {name: s for name, s in scores.items() if not np.isnan(s)}
        assert of_band == pytest.approx(expected, abs=1e-3)
        wanted = np.prod(settings.get('cells', (2, 2))) - 1
        assert mosaic['num_filled'] == wanted - len(expected) and len(mosaic['names']) == wanted
        assert mosaic['self_similarity'] == pytest.approx(0.8, abs=1e-3)


def test_images_above_tau_fill_a_cell_only_where_no_other_can(mini):
    path = mini.root / 'bank.safetensors'
    # Two cells: one negative, none in the band (all stored ones are above tau).
    dataset = mined(mini, path, tau=0.1, tau_mode='absolute', cells=(1, 2))
    write_bank(dataset, path, GREEN)
    names = {m['names'][0] for m in mosaics(dataset, 1)}
    assert names == {'image_1.jpg', 'image_3.jpg', 'image_4.jpg'}
    # image_1 alone is above, image_4 not stored: it fills the cell that the band of one leaves.
    path = mini.root / 'two.safetensors'
    dataset = mined(mini, path, tau=0.9, cells=(1, 3))
    write_bank(dataset, path, GREEN, stored=2)
    names = {n for m in mosaics(dataset, 1) for n in m['names']}
    assert names == {'image_3.jpg', 'image_4.jpg'}


def test_too_small_a_band_can_skip_the_mosaic(mini):
    path = mini.root / 'bank.safetensors'
    dataset = mined(mini, path, tau=0.9, top_k=3, too_few='skip')  # two are below tau
    write_bank(dataset, path, GREEN)
    assert 'mosaic' not in dataset[SampleIndex(1, 0, 0)]['data_samples'].metainfo


def test_a_bank_of_other_data_and_a_bank_cut_short_are_refused(mini):
    path = mini.root / 'other.safetensors'
    dataset = mined(mini, path)
    write_bank(dataset, path, GREEN, fingerprint='0' * 64)
    with pytest.raises(BankError, match='other.safetensors'):
        dataset[SampleIndex(0, 0, 0)]
    short = mini.root / 'short.safetensors'
    dataset = mined(mini, short)
    write_bank(dataset, short, GREEN)
    short.write_bytes(short.read_bytes()[:-10])
    with pytest.raises(BankError, match='short.safetensors'):
        dataset[SampleIndex(0, 0, 0)]


def pipeline(**settings):
    mosaic = mosaic_config(transforms=LOAD, mined=0, **settings)
    return [dict(type='SampleExpressions'), mosaic, dict(type='PackReferringInputs')]


def build(mini, **kwargs):
    return DATASETS.build(mini.config(pipeline(**kwargs)))


@pytest.mark.parametrize(
    ('bad', 'error', 'message'),
    [
        (dict(bank=None), ValueError, 'need bank=dict'),
        (dict(bank=dict(path='x', image='negatives')), TypeError, "argument 'image'"),
        (dict(schedule=dict(mined_prob=0.5)), TypeError, "argument 'mined_prob'"),
        (dict(band=dict(taw=0.9)), TypeError, "argument 'taw'"),
        (dict(band=dict(too_few='none')), ValueError, "too_few='none'"),
        (dict(fill=dict(fit='pad')), ValueError, "fit='pad'"),
        (dict(fill=dict(blur=-0.1)), ValueError, 'blur=-0.1'),
        (dict(fill=dict(interpolation='magic')), ValueError, "interpolation='magic'"),
        (dict(grid=(1, 1)), ValueError, '1x1 cells'),
        (dict(leak_guard=dict(split_file='x')), TypeError, "argument 'split_file'"),
        (dict(band=dict(top_k=7), grid=(3, 3)), ValueError, 'top_k=7.*at most 7 mined.*needs 8'),
        (dict(bank=dict(path='x', keep=2)), ValueError, 'keep=2 gives at most 2'),
    ],
)
def test_bad_arguments_are_refused(bad, error, message):
    good = mosaic_config(bank=dict(path='x'))
    TRANSFORMS.build(dict(good))
    with pytest.raises(error, match=message):
        TRANSFORMS.build({**good, **bad})


def test_a_band_needs_as_many_images_as_the_smallest_or_largest_grid_has_other_cells():
    def build(too_few, **settings):
        TRANSFORMS.build(mosaic_config(bank=dict(path='x', keep=50), too_few=too_few, **settings))

    grids = dict(cells=[(2, 2), (3, 3)], min_cell=4)
    build('random', top_k=3, **grids)  # random images fill the larger grid
    build('skip', top_k=3, probs=[1, 0], **grids)  # which is never drawn here
    for too_few in ('random', 'skip'):
        build(too_few, top_k=8, **grids)
        build(too_few, tau=47, tau_mode='rank')
        with pytest.raises(ValueError, match='at most 2 mined.*needs 3'):
            build(too_few, tau=48, tau_mode='rank')
    with pytest.raises(ValueError, match='at most 7 mined.*needs 8'):
        build('skip', top_k=7, **grids)
    build('skip', top_k=1, mined=0.0, random=0.5)  # nothing is drawn from the band


def test_a_random_mosaic_shows_four_images_and_the_target_mask_in_its_cell(mini):
    dataset = build(mini, random=1.0)
    seen = set()
    for epoch in range(40):
        packed = dataset[SampleIndex(1, epoch, 0)]  # 'green box' of image 2
        mosaic = packed['data_samples'].mosaic
        assert 'image_2.jpg' not in mosaic['names'] and len(set(mosaic['names'])) == 3
        seen.add(mosaic['cell'])
        # Image i is filled with the grey value 40 * i.
        grey = packed['inputs'].numpy().astype(int)[0]
        cells = [grey[:24, :32], grey[:24, 32:], grey[24:, :32], grey[24:, 32:]]
        names = list(mosaic['names'])
        names.insert(mosaic['cell'], 'image_2.jpg')
        for cell, name in zip(cells, names):
            assert abs(cell - 40 * int(name[6])).max() <= 2
        expected = np.zeros((48, 64), np.uint8)
        rows, columns = divmod(mosaic['cell'], 2)
        expected[rows * 24 : rows * 24 + 24, columns * 32 : columns * 32 + 32] = cv2.resize(
            mini.masks[102], (32, 24), interpolation=cv2.INTER_NEAREST_EXACT
        )
        np.testing.assert_array_equal(packed['data_samples'].gt_sem_seg.data[0], expected)
    assert seen == {0, 1, 2, 3}


def test_position_words_choose_the_cell(mini):
    mini.refs[0]['sentences'] = mini.refs[0]['sentences'][:1]  # 'left box'
    dataset = build(mini.write(), random=1.0)
    free = build(mini, random=1.0, keep_positions=False)
    cells = {dataset[SampleIndex(0, v, 0)]['data_samples'].mosaic['cell'] for v in range(30)}
    assert cells == {0, 2}
    cells = {free[SampleIndex(0, v, 0)]['data_samples'].mosaic['cell'] for v in range(30)}
    assert cells == {0, 1, 2, 3}


def test_three_by_three_leaves_no_pixel_unwritten(mini):
    dataset = build(mini, random=1.0, cells=(3, 3))
    packed = dataset[SampleIndex(0, 0, 0)]
    # Nine cells need eight negatives of a pool of three: some are shown twice.
    names = packed['data_samples'].mosaic['names']
    assert len(names) == 8 and set(names) == {'image_2.jpg', 'image_3.jpg', 'image_4.jpg'}
    greys = {40 * i for i in range(1, 5)}
    assert all(min(abs(int(v) - g) for g in greys) <= 3 for v in packed['inputs'].unique())


def test_a_pool_of_one_image_is_an_error(mini):
    mini.refs = [mini.refs[0], mini.refs[4]]
    with pytest.raises(ValueError, match='needs another image'):
        build(mini.write(), random=1.0)[SampleIndex(0, 0, 0)]


def test_several_expressions_are_an_error(mini):
    config = mini.config(pipeline(random=1.0)[1:])
    with pytest.raises(ValueError, match='needs one expression, not 3'):
        DATASETS.build(config)[SampleIndex(0, 0, 0)]


def test_a_sample_without_mosaic_is_that_of_the_pipeline_without(mini):
    plain = DATASETS.build(
        mini.config([dict(type='SampleExpressions'), *LOAD, dict(type='PackReferringInputs')])
    )
    never = build(mini, random=0.0)
    for index in range(5):
        one, two = never[SampleIndex(index, 3, 1)], plain[SampleIndex(index, 3, 1)]
        np.testing.assert_array_equal(one['inputs'], two['inputs'])
        assert one['data_samples'].expressions == two['data_samples'].expressions
        assert 'mosaic' not in one['data_samples'].metainfo


def test_a_missing_bank_names_the_command(mini):
    dataset = mined(mini, mini.root / 'none.safetensors')
    with pytest.raises(FileNotFoundError, match='tools/mine_negatives.py CONFIG'):
        dataset[SampleIndex(0, 0, 0)]


def test_the_repr_names_the_options():
    text = repr(TRANSFORMS.build(mosaic_config(mined=0, cells=[(2, 2), (3, 3)], blur=0.1)))
    for part in ('grid=[(2, 2), (3, 3)]', 'top_k=100', 'blur=0.1', 'size=(48, 64)'):
        assert part in text
