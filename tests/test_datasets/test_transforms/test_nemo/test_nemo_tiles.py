"""Mosaics whose cells come from a tile store, against those that decode every image."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner import BaseLoop
from mmseg.registry import DATASETS, HOOKS, TRANSFORMS
from nemo_helpers import mosaic_config
from torch.utils.data import DataLoader

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.mining.requirements import make, requirements_of
from nemo_mmseg.negatives.tile_store import TileStore, TileStoreError

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
SIZE = (40, 60)


def smooth(seed, height, width):
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.uniform(0, 255, (n, n, 3)), (width, height)) for n in (3, 6, 12)]
    return np.clip(sum(layers) / 3, 0, 255).astype(np.uint8)


@pytest.fixture
def pictures(mini):
    """The small data set with pictures that are no single colours."""
    for image in mini.instances['images']:
        path = mini.root / 'images' / f'image_{image["id"]}.jpg'
        assert cv2.imwrite(str(path), smooth(image['id'], image['height'], image['width']))
    return mini


def build(mini, path=None, encoding='raw', **settings):
    if path is not None:
        settings.update(tiles=dict(path=str(path), encoding=encoding))
    mosaic = mosaic_config(**(dict(size=SIZE, transforms=LOAD, random=1.0, mined=0.0) | settings))
    pipeline = [dict(type='SampleExpressions'), mosaic, dict(type='PackReferringInputs')]
    return DATASETS.build(mini.config(pipeline))


def make_tiles(dataset):
    (requirement,) = requirements_of(dataset)
    make(requirement, num_workers=0, progress=False)
    return requirement.spec


def samples(dataset, epochs=3):
    return [dataset[SampleIndex(i, v, 5)] for v in range(epochs) for i in range(len(dataset))]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a['inputs'], b['inputs'])
        a, b = a['data_samples'], b['data_samples']
        assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)
        assert sorted(map(str, a.metainfo_items())) == sorted(map(str, b.metainfo_items()))


@pytest.mark.parametrize('options', [{}, dict(blur=0.1, interpolation='bicubic')], ids=str)
def test_raw_tiles_give_the_same_samples(pictures, tmp_path, options):
    dataset = build(pictures, tmp_path / 'tiles', **options)
    spec = make_tiles(dataset)
    assert (spec.height, spec.width) == (20, 30)
    expected = samples(build(pictures, **options))
    assert_same(samples(dataset), expected)
    for image in (pictures.root / 'images').iterdir():  # they are not opened any more
        image.unlink()
    assert_same(samples(dataset), expected)


def test_jpeg_tiles_give_nearly_the_same_samples(pictures, tmp_path):
    dataset = build(pictures, tmp_path / 'tiles', encoding='jpeg')
    make_tiles(dataset)
    differs = False
    for got, expected in zip(samples(dataset), samples(build(pictures)), strict=True):
        got_sample, expected_sample = got['data_samples'], expected['data_samples']
        assert str(got_sample.mosaic) == str(expected_sample.mosaic)
        assert torch.equal(got_sample.gt_sem_seg.data, expected_sample.gt_sem_seg.data)
        assert cv2.PSNR(got['inputs'].numpy(), expected['inputs'].numpy()) > 33
        differs |= not torch.equal(got['inputs'], expected['inputs'])
    assert differs


def test_negatives_of_a_folder_come_from_tiles_and_targets_from_their_files(pictures, tmp_path):
    folder = tmp_path / 'others' / 'deep'
    folder.mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(str(folder / f'o{i}.png'), smooth(50 + i, 30, 50))
    bank = dict(path='none', images=str(folder.parent))
    dataset = build(pictures, tmp_path / 'tiles', bank=bank)
    make_tiles(dataset)
    assert len(TileStore(tmp_path / 'tiles')) == 6
    assert_same(samples(dataset), samples(build(pictures, bank=bank)))


def test_workers_read_the_same(pictures, tmp_path):
    dataset = build(pictures, tmp_path / 'tiles')
    make_tiles(dataset)
    loader = DataLoader(
        dataset,
        sampler=[SampleIndex(i, 1, 5) for i in range(len(dataset))],
        batch_size=None,
        num_workers=2,
        multiprocessing_context='spawn',
    )
    assert_same(list(loader), samples(dataset, 2)[len(dataset) :])


def test_a_store_of_other_images_or_settings_is_refused(pictures, tmp_path):
    path = tmp_path / 'tiles'
    make_tiles(build(pictures, path))
    for settings, message in (
        (dict(encoding='jpeg'), "encoding='raw'.*the config asks for.*encoding='jpeg'"),
        (dict(size=(48, 64)), 'height=20, width=30'),
    ):
        with pytest.raises(TileStoreError, match=message):
            samples(build(pictures, path, **settings))
        with pytest.raises(TileStoreError, match=message):
            make_tiles(build(pictures, path, **settings))
    image = pictures.root / 'images' / 'image_2.jpg'
    image.write_bytes(image.read_bytes() + b'\0')
    with pytest.raises(TileStoreError, match='fingerprint=.*of the 4 images'):
        samples(build(pictures, path))


def test_a_missing_store_says_how_to_make_it(pictures, tmp_path):
    dataset = build(pictures, tmp_path / 'tiles')
    with pytest.raises(FileNotFoundError, match='python tools/misc/make_tile_store.py CONFIG'):
        samples(dataset)


def test_an_annotated_size_that_is_wrong_is_noticed(pictures, tmp_path):
    make_tiles(build(pictures, tmp_path / 'tiles'))
    for image in pictures.instances['images']:
        image['height'] += 1
    for annotation in pictures.instances['annotations']:
        annotation['segmentation'] = [[4, 3, 24, 3, 24, 18, 4, 18]]  # an RLE has the size, too
    pictures.write()
    for image in pictures.instances['images']:
        path = pictures.root / 'images' / f'image_{image["id"]}.jpg'
        cv2.imwrite(str(path), smooth(image['id'], image['height'] - 1, image['width']))
    with pytest.raises(ValueError, match='annotated as'):
        build(pictures, tmp_path / 'tiles')[0]


def test_two_stores_in_one_file(pictures, tmp_path):
    pair = [build(pictures, tmp_path / 'tiles', encoding) for encoding in ('raw', 'jpeg')]
    both = DATASETS.build(dict(type='ConcatDataset', datasets=pair))
    with pytest.raises(ValueError, match='tiles'):
        requirements_of(both)
    same = DATASETS.build(dict(type='ConcatDataset', datasets=pair[:1] * 2))
    assert len(requirements_of(same)) == 1


def test_the_hook_makes_missing_stores_before_training(pictures, tmp_path):
    class Loop(BaseLoop):
        dataloader = SimpleNamespace(dataset=build(pictures, tmp_path / 'tiles'))

        def __init__(self):
            """Nothing to build."""

        def run(self):
            """Not run."""

    runner = SimpleNamespace(_train_loop=Loop())
    hook = HOOKS.build(dict(type='NegativeMiningHook', num_workers=0))
    for _ in range(2):  # it is there the second time
        hook.before_run(runner)
    assert len(TileStore(tmp_path / 'tiles')) == 4
    Loop.dataloader.dataset = build(pictures, tmp_path / 'tiles')
    assert_same(samples(Loop.dataloader.dataset), samples(build(pictures)))
    (tmp_path / 'tiles').write_bytes(b'')
    with pytest.raises(TileStoreError, match='tiles is damaged, or no tile store'):
        hook.before_run(runner)


TOOL = Path(__file__).resolve().parents[4] / 'tools' / 'misc' / 'make_tile_store.py'


def test_the_tool_makes_the_stores_of_a_config(pictures, tmp_path, monkeypatch):
    config = tmp_path / 'config.py'
    mosaic = mosaic_config(
        size=SIZE, random=1.0, mined=0.0, tiles=dict(path=str(tmp_path / 'tiles'))
    )
    config.write_text(f'train_dataloader = dict(dataset={pictures.config([mosaic])!r})')
    monkeypatch.setattr(sys, 'argv', ['tool', str(config), '--workers', '0'])
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    runpy.run_path(str(TOOL), run_name='__main__')
    assert len(TileStore(tmp_path / 'tiles')) == 4


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(tiles=dict(encoding='raw')), TypeError, "argument: 'path'"),
        (dict(tiles=dict(path='x', kind=1)), TypeError, "argument 'kind'"),
        (dict(tiles=dict(path='x', encoding='png')), ValueError, "encoding='png'"),
        (dict(tiles=dict(path='x'), fit='crop'), ValueError, "fit='crop'"),
        (dict(tiles=dict(path='x'), cells=(3, 3)), ValueError, r'\(13, 20\), \(14, 20\)'),
        (dict(tiles=dict(path='x'), cells=[(2, 2), (2, 3)]), ValueError, r'20, 20.*20, 30'),
        (dict(tiles=dict(path='x'), jitter=0.5, min_cell=4), ValueError, 'have the sizes any'),
    ],
    ids=str,
)
def test_what_a_store_cannot_do_is_refused_when_the_config_is_built(options, error, message):
    with pytest.raises(error, match=message):
        TRANSFORMS.build(mosaic_config(size=SIZE, random=1.0, mined=0.0, **options))
