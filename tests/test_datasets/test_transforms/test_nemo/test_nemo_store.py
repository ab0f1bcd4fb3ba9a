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
from PIL import Image
from torch.utils.data import DataLoader

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.transforms.nemo.cells import read_reduced
from nemo_mmseg.mining import requirements as wanted_stores
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


def build(mini, store=None, **options):
    settings = (
        dict(size=SIZE, transforms=LOAD, random_prob=1.0, mined_prob=0.0, store=store) | options
    )
    pipeline = [dict(type='SampleExpressions'), dict(type='NeMoMosaic', **settings)]
    return DATASETS.build(mini.config([*pipeline, dict(type='PackReferringInputs')]))


def make(dataset):
    stores = wanted_stores(dataset)
    for store in stores:
        store.make(num_workers=0, progress=False)
    return stores


def samples(dataset, visits=3):
    return [dataset[SampleIndex(i, v, 5)] for v in range(visits) for i in range(len(dataset))]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a['inputs'], b['inputs'])
        a, b = a['data_samples'], b['data_samples']
        assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)
        assert sorted(map(str, a.metainfo_items())) == sorted(map(str, b.metainfo_items()))


@pytest.mark.parametrize('target', [False, True])
@pytest.mark.parametrize('options', [{}, dict(negative_blur=0.1, interpolation='bicubic')], ids=str)
def test_raw_tiles_give_the_same_samples(pictures, tmp_path, target, options):
    dataset = build(pictures, dict(path=str(tmp_path / 'tiles'), target=target), **options)
    (store,) = make(dataset)
    assert (store.settings.height, store.settings.width) == (20, 30)
    assert_same(samples(dataset), samples(build(pictures, **options)))


def test_images_are_not_opened_any_more(pictures, tmp_path):
    dataset = build(pictures, dict(path=str(tmp_path / 'tiles'), target=True))
    make(dataset)
    expected = samples(dataset)
    for image in (pictures.root / 'images').iterdir():
        image.unlink()
    assert_same(samples(dataset), expected)


@pytest.mark.parametrize('target', [False, True])
def test_jpeg_tiles_give_nearly_the_same_samples(pictures, tmp_path, target):
    # YAML and JSON configs may hold 92.0
    jpeg = dict(path=str(tmp_path / 'tiles'), encoding='jpeg', quality=92.0, target=target)
    dataset = build(pictures, jpeg)
    make(dataset)
    differs = False
    for got, expected in zip(samples(dataset), samples(build(pictures)), strict=True):
        made = got['data_samples'].mosaic
        assert str(made) == str(expected['data_samples'].mosaic)
        assert torch.equal(
            got['data_samples'].gt_sem_seg.data, expected['data_samples'].gt_sem_seg.data
        )
        assert cv2.PSNR(got['inputs'].numpy(), expected['inputs'].numpy()) > 33
        row, column = divmod(made['cell'], 2)
        cell = np.s_[:, 20 * row : 20 * row + 20, 30 * column : 30 * column + 30]
        same = torch.equal(got['inputs'][cell], expected['inputs'][cell])
        assert same or target
        differs |= not torch.equal(got['inputs'], expected['inputs'])
    assert differs


def test_other_grids_are_resized_from_the_tiles(pictures, tmp_path):
    grids = dict(grid=[(2, 2), (3, 3)], crossing=0.5, min_cell=4)
    store = dict(path=str(tmp_path / 'tiles'), resize=True)
    dataset = build(pictures, store, **grids)
    make(dataset)
    plain = samples(build(pictures, **grids))
    for got, expected in zip(samples(dataset), plain, strict=True):
        made = got['data_samples'].mosaic
        assert str(made) == str(expected['data_samples'].mosaic)
        rows, columns = made['edges']
        names, canvas = iter(made['names']), got['inputs'].numpy().transpose(1, 2, 0)
        for cell in range((len(rows) - 1) * (len(columns) - 1)):
            row, column = divmod(cell, len(columns) - 1)
            window = np.s_[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
            if cell == made['cell']:
                exact = expected['inputs'].numpy().transpose(1, 2, 0)[window]
            else:
                image = cv2.imread(str(pictures.root / 'images' / next(names)))
                height, width = canvas[window].shape[:2]
                tile = cv2.resize(image, (30, 20))
                exact = tile if (height, width) == (20, 30) else cv2.resize(tile, (width, height))
            np.testing.assert_array_equal(canvas[window], exact)


def test_negatives_of_a_folder(pictures, tmp_path):
    folder = tmp_path / 'others' / 'deep'
    folder.mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(str(folder / f'o{i}.png'), smooth(50 + i, 30, 50))
    bank = dict(images=str(folder.parent))
    store = dict(path=str(tmp_path / 'tiles'))
    with pytest.raises(ValueError, match='does not have the targets'):
        build(pictures, dict(store, target=True), bank=bank)
    expected = samples(build(pictures, bank=bank))
    dataset = build(pictures, store, bank=bank)
    assert len(make(dataset)) == 1
    assert_same(samples(dataset), expected)
    dataset = build(pictures, dict(store, target=str(tmp_path / 'own')), bank=bank)
    assert [len(wanted.make()) for wanted in make(dataset)] == [6, 4]
    assert_same(samples(dataset), expected)


def test_workers_read_the_same(pictures, tmp_path):
    dataset = build(pictures, dict(path=str(tmp_path / 'tiles'), target=True))
    make(dataset)
    loader = DataLoader(
        dataset,
        sampler=[SampleIndex(i, 1, 5) for i in range(len(dataset))],
        batch_size=None,
        num_workers=2,
        multiprocessing_context='spawn',
    )
    assert_same(list(loader), samples(dataset, 2)[len(dataset) :])


def test_a_store_of_other_images_is_refused_when_the_data_set_is_built(pictures, tmp_path):
    store = dict(path=str(tmp_path / 'tiles'))
    make(build(pictures, store))
    with pytest.raises(TileStoreError, match="encoding='raw'.*the config asks for"):
        build(pictures, dict(store, encoding='jpeg'))
    with pytest.raises(TileStoreError, match='height=20, width=30'):
        build(pictures, store, size=(48, 64))
    path = pictures.root / 'images' / 'image_2.jpg'
    path.write_bytes(path.read_bytes() + b'\0')
    with pytest.raises(TileStoreError, match='made of other images than the 4'):
        build(pictures, store)


def test_a_missing_store_says_how_to_make_it(pictures, tmp_path):
    dataset = build(pictures, dict(path=str(tmp_path / 'tiles')))
    with pytest.raises(FileNotFoundError, match='python tools/misc/make_tile_store.py CONFIG'):
        samples(dataset)


def test_an_annotated_size_that_is_wrong_is_noticed(pictures, tmp_path):
    store = dict(path=str(tmp_path / 'tiles'), target=True)
    make(build(pictures, store))
    for image in pictures.instances['images']:
        image['height'] += 1
    pictures.write()
    for image in pictures.instances['images']:
        path = pictures.root / 'images' / f'image_{image["id"]}.jpg'
        cv2.imwrite(str(path), smooth(image['id'], image['height'] - 1, image['width']))
    with pytest.raises(ValueError, match='annotated as'):
        build(pictures, store)[0]


def test_two_stores_in_one_file(pictures, tmp_path):
    store = dict(path=str(tmp_path / 'tiles'))
    pair = [build(pictures, store), build(pictures, dict(store, encoding='jpeg'))]
    both = DATASETS.build(dict(type='ConcatDataset', datasets=pair))
    with pytest.raises(ValueError, match='different tile stores in the same file'):
        wanted_stores(both)
    assert (
        len(wanted_stores(DATASETS.build(dict(type='ConcatDataset', datasets=pair[:1] * 2)))) == 1
    )


def test_the_hook_makes_missing_stores_before_training(pictures, tmp_path):
    class Loop(BaseLoop):
        dataloader = SimpleNamespace(dataset=build(pictures, dict(path=str(tmp_path / 'tiles'))))

        def __init__(self):
            """Nothing to build."""

        def run(self):
            """Not run."""

    runner = SimpleNamespace(_train_loop=Loop())
    hook = HOOKS.build(dict(type='NegativeMiningHook', num_workers=0))
    for _ in range(2):  # it is there the second time
        hook.before_run(runner)
    assert len(TileStore(tmp_path / 'tiles')) == 4
    Loop.dataloader.dataset = build(pictures, dict(path=str(tmp_path / 'tiles')))
    assert_same(samples(Loop.dataloader.dataset), samples(build(pictures)))
    (tmp_path / 'tiles').write_bytes(b'')
    with pytest.raises(TileStoreError, match='cut short or no tile store'):
        hook.before_run(runner)


TOOLS = Path(__file__).resolve().parents[4] / 'tools'


@pytest.mark.parametrize('tool', ['make_tile_store.py', 'mine_negatives.py'])
def test_tools_make_the_stores_of_a_config(pictures, tmp_path, monkeypatch, tool, capsys):
    mosaic = dict(type='NeMoMosaic', size=SIZE, transforms=[], random_prob=1.0, mined_prob=0.0)
    mosaic['store'] = dict(path=str(tmp_path / 'tiles'))
    config = tmp_path / 'config.py'
    data = pictures.config([mosaic])
    config.write_text(f'train_dataloader = dict(dataset={data!r})')
    monkeypatch.setattr(sys, 'argv', [tool, str(config), '--workers', '0'])
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    if tool == 'mine_negatives.py':  # after the store it misses the bank
        with pytest.raises(ValueError, match='no NeMoMosaic with a bank'):
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
    else:
        runpy.run_path(str(TOOLS / tool), run_name='__main__')
        assert 'tiles: 4 tiles of 20x30, raw' in capsys.readouterr().out
    assert len(TileStore(tmp_path / 'tiles')) == 4


PATH = dict(path='tiles')


@pytest.mark.parametrize(
    'options, said',
    [
        (dict(store='tiles'), "must be dict(path=..., encoding='raw' or 'jpeg', ...)"),
        (dict(store=dict(encoding='raw')), 'must be dict(path=...'),
        (dict(store=dict(PATH, kind=1)), "store has ['kind'], but its entries are"),
        (dict(store=dict(PATH, encoding='png')), "encoding='png' is neither 'raw' nor 'jpeg'"),
        (dict(store=dict(PATH, quality=90)), "quality is for encoding='jpeg'"),
        (dict(store=dict(PATH, encoding='jpeg', quality=0)), 'quality=0 must be a whole number'),
        (dict(store=dict(PATH, size=20)), 'size=20 must be (height, width)'),
        (dict(store=dict(PATH, resize='yes')), "resize='yes' must be True or False"),
        (dict(store=dict(PATH, target=3)), 'target=3 must be True, False or a path'),
        (dict(store=PATH, negative_fit='crop'), "negative_fit='crop' would have to enlarge"),
        (dict(store=PATH, negative_decode='reduced'), 'is for mosaics without store'),
        (dict(negative_decode='half'), "negative_decode='half' is none of"),
        (dict(store=dict(PATH, size=(21, 30))), 'tiles of 21x30 pixels, but there are cells of 20'),
        (dict(store=PATH, grid=(3, 3)), 'of 14x20 pixels, but there are cells of 13x20, 14x20'),
        (dict(store=PATH, grid=[(2, 2), (2, 3)]), 'but there are cells of 20x20, 20x30'),
        (dict(store=PATH, crossing=0.5, min_cell=4), 'there are cells of any size'),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_a_store_cannot_do_is_refused_when_the_config_is_built(options, said):
    settings = dict(size=SIZE, transforms=LOAD, random_prob=1.0, mined_prob=0.0) | options
    with pytest.raises(ValueError) as error:
        TRANSFORMS.build(dict(type='NeMoMosaic', **settings))
    assert said in str(error.value)


def test_reduced_decoding_is_no_worse_than_the_published_resize(tmp_path):
    rng, published, reduced = np.random.default_rng(0), [], []
    for i in range(4):
        noise = rng.uniform(0, 255, (480, 640, 3)) * 0.3 + smooth(i, 480, 640) * 0.7
        path = str(tmp_path / f'{i}.jpg')
        cv2.imwrite(path, noise.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
        image, small = cv2.imread(path), read_reduced(path, 240, 200)
        assert small.shape == (240, 320, 3)
        truth = cv2.resize(image, (200, 240), interpolation=cv2.INTER_AREA)
        published.append(cv2.PSNR(cv2.resize(image, (200, 240)), truth))
        reduced.append(cv2.PSNR(cv2.resize(small, (200, 240)), truth))
    assert np.mean(reduced) > np.mean(published) + 1


def test_reduced_decoding_never_gives_less_than_a_cell(tmp_path):
    image = smooth(0, 96, 128)
    for name in ('a.jpg', 'a.png'):
        cv2.imwrite(str(tmp_path / name), image)
    shapes = {n: read_reduced(str(tmp_path / 'a.jpg'), n, n).shape[0] for n in (97, 49, 48, 24, 12)}
    assert shapes == {97: 96, 49: 96, 48: 48, 24: 24, 12: 12}
    np.testing.assert_array_equal(read_reduced(str(tmp_path / 'a.png'), 12, 12), image)
    (tmp_path / 'bad.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match='cannot read the image .*bad.jpg'):
        read_reduced(str(tmp_path / 'bad.jpg'), 12, 12)


@pytest.mark.parametrize(
    'size, cell, times',
    [
        ((640, 480), 240, 2), ((480, 640), 240, 2), ((640, 427), 240, 1), ((427, 640), 240, 1),
        ((640, 480), 208, 2), ((480, 640), 208, 2), ((640, 427), 208, 2), ((427, 640), 208, 2),
        ((640, 480), 120, 4), ((640, 427), 106, 4), ((640, 427), 107, 2),
    ],
)  # fmt: skip
def test_which_files_of_common_sizes_are_reduced(tmp_path, size, cell, times):
    """As docs/performance.md says; sizes are width and height."""
    path = str(tmp_path / 'a.jpg')
    cv2.imwrite(path, smooth(0, size[1], size[0]))
    height, width = read_reduced(path, cell, cell).shape[:2]
    assert (width, height) == tuple(-(-side // times) for side in size)


def test_images_too_large_for_pillow_are_decoded_at_full_size(tmp_path, monkeypatch):
    path, image = str(tmp_path / 'a.jpg'), smooth(0, 96, 128)
    cv2.imwrite(path, image)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    np.testing.assert_array_equal(read_reduced(path, 12, 12), cv2.imread(path))


def test_mosaics_of_reduced_negatives(pictures):
    full, reduced = (build(pictures, size=(20, 20), negative_decode=d) for d in ('full', 'reduced'))
    pairs = zip(samples(full), samples(reduced), strict=True)
    for one, other in pairs:
        assert str(one['data_samples'].mosaic) == str(other['data_samples'].mosaic)
        assert cv2.PSNR(one['inputs'].numpy(), other['inputs'].numpy()) > 25
