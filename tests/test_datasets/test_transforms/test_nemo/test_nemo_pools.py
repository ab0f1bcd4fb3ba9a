"""NeMoMosaic's negatives from a folder, and without images that are tested on."""

import pickle
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS, TRANSFORMS
from nemo_helpers import mosaic_config

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.mining.requirements import make, requirements_of
from nemo_mmseg.negatives.bank import BankError, NegativeBank
from nemo_mmseg.negatives.leak_guard import LeakError, split_images
from nemo_mmseg.negatives.pool import folder_pool
from nemo_mmseg.visualization.browse import draw_training_sample

TINY = Path(__file__).parents[3] / 'test_mining' / 'tiny_mining.py'
LOAD = [
    dict(type='LoadReferringImage'),
    dict(type='LoadReferentMask'),
    dict(type='Resize', scale=(64, 48), keep_ratio=False),
]


def build(mini, **settings):
    mosaic = mosaic_config(**(dict(transforms=LOAD, mined=0) | settings))
    return DATASETS.build(
        mini.config([dict(type='SampleExpressions'), mosaic, dict(type='PackReferringInputs')])
    )


def names_of(dataset, index, number=60):
    samples = [dataset[SampleIndex(index, epoch, 0)]['data_samples'] for epoch in range(number)]
    return {name for sample in samples for name in sample.mosaic['names']}


@pytest.fixture
def folder(mini):
    """Grey images of values 200, 210, ...; one is a copy of the data set's image 2."""
    folder = mini.root / 'negatives'
    (folder / 'more').mkdir(parents=True)
    for i in range(5):
        value = np.full((30, 50, 3), 200 + 10 * i, np.uint8)
        cv2.imwrite(str(folder / ('more' if i % 2 else '.') / f'{i}.png'), value)
    shutil.copy(mini.root / 'images' / 'image_2.jpg', folder)
    return folder


OWN = {'0.png', 'more/1.png', '2.png', 'more/3.png', '4.png'}


def test_random_negatives_come_from_the_folder_and_never_show_the_own_image(mini, folder):
    dataset = build(mini, random=1.0, bank=dict(path='none', images=str(folder)))
    assert names_of(dataset, 0) == OWN | {'image_2.jpg'}
    assert names_of(dataset, 1) == OWN  # the item is image_2 itself
    packed = dataset[SampleIndex(0, 3, 0)]
    mosaic = packed['data_samples'].mosaic
    grey = packed['inputs'].numpy()[0].astype(int)
    cells = [grey[:24, :32], grey[:24, 32:], grey[24:, :32], grey[24:, 32:]]
    del cells[mosaic['cell']]
    for cell, name in zip(cells, mosaic['names']):
        value = 80 if name == 'image_2.jpg' else 200 + 10 * int(Path(name).stem)
        assert abs(cell - value).max() <= 2


def test_mined_negatives_come_from_the_folder(mini, folder, tmp_path):
    tiny = runpy.run_path(str(TINY))
    weights = tmp_path / 'clip'
    weights.mkdir()
    tiny['make'](str(weights), num_images=1, num_expressions=1)
    bank = dict(
        path=str(tmp_path / 'bank.safetensors'), model=tiny['MODEL'], keep=100,
        pretrained=str(weights / 'weights.pt'), images=str(folder),
    )  # fmt: skip
    settings = dict(bank=bank, mined=1.0, tau=0, tau_mode='rank', top_k=3)
    dataset = build(mini, **settings)
    (requirement,) = requirements_of(dataset)
    make(requirement, num_workers=0, device='cpu', progress=False)
    mined = NegativeBank(bank['path'])
    assert mined.num_candidates == 6 and mined.stored == 5
    for index in range(5):
        packed = dataset[SampleIndex(index, 0, 0)]
        sample = packed['data_samples']
        rows, *_ = mined.row(sample.sent_ids[0])
        best = {mined.image_names[row] for row in rows[:3]}
        assert set(sample.mosaic['names']) == best
        assert index != 1 or 'image_2.jpg' not in best
        assert not sample.mosaic['truncated'] and sample.mosaic['num_filled'] == 0
        assert draw_training_sample(packed).shape[1] == 64
    # Without the folder, or with another content, it is another data set's bank.
    settings['bank'].pop('images')
    with pytest.raises(BankError, match='images or expressions differ'):
        build(mini, **settings)[SampleIndex(0, 0, 0)]
    settings['bank']['images'] = str(folder)
    (folder / '0.png').unlink()
    folder_pool.cache_clear()
    with pytest.raises(BankError, match='images or expressions differ'):
        build(mini, **settings)[SampleIndex(0, 0, 0)]


def held_out(mini, **splits):
    """Another data set's references, with images of this one in its val split."""
    refs = [
        dict(split=split, file_name=f'image_{i}_{100 + i}.jpg')
        for split, images in splits.items()
        for i in images
    ]
    split_images.cache_clear()  # files do not change while a program runs, but for tests
    (mini.root / 'other').mkdir(exist_ok=True)
    (mini.root / 'other' / 'refs(umd).p').write_bytes(pickle.dumps(refs, protocol=2))
    return dict(split_files=['other/refs(umd).p'], data_root=str(mini.root))


def test_an_image_that_is_tested_on_is_no_negative(mini):
    guard = held_out(mini, train=[4], val=[3, 9])
    every = {f'image_{i}.jpg' for i in range(1, 5)}
    grid = dict(cells=(1, 3), random=1.0)
    assert names_of(build(mini, **grid), 0) == every - {'image_1.jpg'}
    dataset = build(mini, leak_guard=dict(guard, action='drop'), **grid)
    assert names_of(dataset, 0) == {'image_2.jpg', 'image_4.jpg'}
    # An item whose own image is held out elsewhere stays what it is: the guard is on negatives.
    assert names_of(dataset, 2) == {'image_1.jpg', 'image_2.jpg', 'image_4.jpg'}
    with pytest.raises(LeakError, match=r'1 of the 4 .* 1 of other/refs\(umd\).p val'):
        build(mini, leak_guard=guard, **grid)  # when the config is built
    unharmed = build(mini, leak_guard=held_out(mini, train=[1, 2, 3, 4], val=[9]), **grid)
    assert names_of(unharmed, 0) == every - {'image_1.jpg'}


def test_a_leaking_pool_is_refused_before_it_is_mined(mini, folder, tmp_path):
    path = tmp_path / 'bank'
    bank = dict(path=str(path), model='none', images=str(folder))
    settings = dict(bank=bank, mined=0.5, leak_guard=held_out(mini, test=[2, 3]))
    # Of the folder's images image_2 is held out; image_3 lies in the data set alone.
    message = r'1 of the 6 .*negatives.* The first is image_2.jpg'
    with pytest.raises(LeakError, match=message):
        build(mini, **settings)
    # In the pipeline of a wrapper around data sets a mosaic is found by the mining hook.
    dataset = DATASETS.build(mini.config())
    mosaic = TRANSFORMS.build(mosaic_config(transforms=LOAD, **settings))
    with pytest.raises(LeakError, match=message):
        requirements_of(SimpleNamespace(dataset=dataset, pipeline=[mosaic]))
    assert not path.exists()


def test_a_folder_with_the_own_test_images_is_refused_unasked(mini, folder, tmp_path):
    shutil.copy(mini.root / 'images' / 'image_5.jpg', folder / 'more')  # of the own val split
    folder_pool.cache_clear()
    bank = dict(path=str(tmp_path / 'bank'), model='none', images=str(folder))
    other = dict(held_out(mini, val=[2]), action='drop')  # knows nothing of the own splits
    message = r'1 of .*mini/refs\(unc\).p val. The first is more/image_5.jpg'
    for settings in (
        dict(mined=0.5),
        dict(random=1.0),
        dict(mined=0.5, leak_guard=other),
    ):
        with pytest.raises(LeakError, match=message):
            build(mini, bank=bank, **settings)
    guard = dict(split_files=['mini/refs(unc).p'], data_root=str(mini.root), action='drop')
    dataset = build(mini, random=1.0, leak_guard=guard, bank=bank)
    assert names_of(dataset, 0) == OWN | {'image_2.jpg'}
    # Who names the own splits has chosen among them.
    guard['splits'] = ['test']
    (mini.root / 'other' / 'refs(umd).p').write_bytes(
        pickle.dumps([dict(split='test', file_name='a_1.jpg')])
    )
    split_images.cache_clear()
    guard['split_files'].append('other/refs(umd).p')
    dataset = build(mini, random=1.0, leak_guard=guard, bank=bank)
    assert 'more/image_5.jpg' in names_of(dataset, 0)


@pytest.mark.parametrize('group_by', ['reference', 'image'])
def test_a_guarded_data_set_shows_no_test_image_to_any_augmentation(mini, group_by):
    guard = held_out(mini, train=[4], val=[3, 9])
    mixed = ('CutMix', 'MixGen', 'CopyPaste')
    transforms = [dict(type=name, transforms=LOAD, prob=1.0) for name in mixed]
    transforms[2].update(other_category=False)
    transforms.append(mosaic_config(transforms=LOAD, mined=0, random=1))
    for transform in transforms:
        pipeline = [dict(type='SampleExpressions'), transform, dict(type='PackReferringInputs')]
        open_data = DATASETS.build(mini.config(pipeline, group_by=group_by))
        config = mini.config(pipeline, group_by=group_by, leak_guard=dict(guard, action='drop'))
        clean = DATASETS.build(config)
        seen = [seen_by(dataset) for dataset in (open_data, clean)]
        assert seen == [
            {f'image_{i}.jpg' for i in numbers} for numbers in ((1, 2, 3, 4), (1, 2, 4))
        ]
        assert clean.pool.ids.tolist() == [1, 2, 4] and clean.fingerprint != open_data.fingerprint
        assert set(clean.expressions()[0]) == {10, 11, 12, 20, 40, 41, 50}
    with pytest.raises(LeakError, match=r'1 of the 4 images of .*mini/refs.*1 of other/.* val'):
        DATASETS.build(mini.config(leak_guard=guard))
    with pytest.raises(LeakError, match='if at least 1 are left'):
        every = dict(held_out(mini, val=[1, 2, 3, 4]), action='drop')
        DATASETS.build(mini.config(leak_guard=every))


def seen_by(dataset):
    """Names of all images in some epochs of a data set, as its samples tell them."""
    names = set()
    for epoch in range(12):
        for index in range(len(dataset)):
            sample = dataset[SampleIndex(index, epoch, 0)]['data_samples']
            names.add(Path(sample.img_path).name)
            names.update(sample.get('mosaic', {}).get('names', []))
            if 'mixed' in sample:
                names.add(Path(sample.mixed['img_path']).name)
    return names
