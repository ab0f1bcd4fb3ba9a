"""Images of any kind and in any folder: the same picture wherever the package reads it."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from check_data import check_data, format_reports
from mini_refcoco import HEIGHT, WIDTH
from mmengine.config import Config
from mmseg.registry import DATASETS, TRANSFORMS
from nemo_helpers import mosaic_config, write_bank
from PIL import Image

from nemo_mmseg.apis.inputs import make_item
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.mining.embed import blocks_of, embed_images
from nemo_mmseg.mining.requirements import make, requirements_of
from nemo_mmseg.mining.vectors import VectorStore
from nemo_mmseg.negatives.leak_guard import LeakGuard, split_images
from nemo_mmseg.negatives.pool import BankImages, FolderPool, folder_pool

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
PACK = dict(type='PackReferringInputs')


def build(mini, *pipeline, **settings):
    return DATASETS.build(
        mini.config([dict(type='SampleExpressions'), *pipeline, PACK], **settings)
    )


class Eyes:
    """An embedder that keeps what it is shown."""

    batch_size, device = 4, 'cpu'

    def __init__(self):
        self.seen = []

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image).copy())

    def images(self, batch):
        self.seen += list(batch.numpy())
        return np.eye(len(batch), 8, dtype=np.float32)


def mined_pictures(dataset, folder):
    """What mining shows its network of the data set's images, RGB."""
    eyes, images = Eyes(), BankImages(dataset.pool)
    embed_images(eyes, images, blocks_of(len(images)), VectorStore('eyes', folder), 0)
    return eyes.seen


def tiles_of(dataset):
    """The tile store that a mosaic asks for."""
    found = [make(one, num_workers=0, progress=False) for one in requirements_of(dataset)]
    return found[-1]


def draw(mini, orientation=1):
    """Each picture is red where its first object is, and carries an EXIF tag."""
    pictures, exif = {}, Image.Exif()
    exif[0x112] = orientation
    for image in mini.instances['images']:
        rgb = np.full((HEIGHT, WIDTH, 3), 40 * image['id'], np.uint8)
        rgb[..., 2] = np.arange(WIDTH)
        rgb[mini.masks[100 + image['id']] == 1] = (255, 0, 0)
        path = mini.root / 'images' / image['file_name']
        path.parent.mkdir(parents=True, exist_ok=True)
        # PNG loses nothing; a file's name does not tell its kind.
        Image.fromarray(rgb).save(path, 'PNG', exif=exif)
        pictures[image['file_name']] = rgb
    return pictures


def red(bgr):
    return (bgr[..., 2] == 255) & (bgr[..., 1] == 0) & (bgr[..., 0] == 0)


def arrays_of(packed):
    return packed['inputs'].numpy().transpose(1, 2, 0), packed['data_samples'].gt_sem_seg.data[0]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_mask_and_picture_belong_together_everywhere(mini, tmp_path, orientation):
    pictures = draw(mini, orientation)
    dataset = build(mini, *LOAD)
    mosaic = mosaic_config(size=(2 * HEIGHT, 2 * WIDTH), transforms=LOAD, random=1.0, mined=0.0)
    tiled = dict(mosaic, tiles=dict(path=str(tmp_path / 'tiles')))
    mosaics = [build(mini, one) for one in (mosaic, tiled)]
    store = tiles_of(mosaics[1])
    for index in range(4):  # the references of the first object of each image
        picture, mask = arrays_of(dataset[SampleIndex(index, 0, 0)])
        np.testing.assert_array_equal(red(picture), mask == 1)
        for one in mosaics:
            packed = one[SampleIndex(index, 0, 0)]
            picture, mask = arrays_of(packed)
            row, column = divmod(packed['data_samples'].mosaic['cell'], 2)
            cell = np.s_[row * HEIGHT : (row + 1) * HEIGHT, column * WIDTH : (column + 1) * WIDTH]
            assert (
                mask.any()
                and not np.delete(
                    mask.flatten(), np.ravel_multi_index(np.mgrid[cell].reshape(2, -1), mask.shape)
                ).any()
            )
            np.testing.assert_array_equal(red(picture[cell]), mask[cell] == 1)
    names = [str(name) for name in dataset.pool.names]
    for name, seen in zip(names, mined_pictures(dataset, tmp_path), strict=True):
        np.testing.assert_array_equal(seen, pictures[name])
        np.testing.assert_array_equal(store.read(store.row_of(name)), pictures[name][..., ::-1])
        path = mini.root / 'images' / name
        for given in (str(path), Image.open(path)):
            if orientation == 1:
                item = make_item(given, ['box'])
            else:
                with pytest.warns(UserWarning, match=f'orientation {orientation}.*exif_transpose'):
                    item = make_item(given, ['box'])
            np.testing.assert_array_equal(item['img'], pictures[name][..., ::-1])


def test_check_data_remarks_that_images_are_turned(mini):
    draw(mini, 6)
    cfg = Config(dict(train_dataloader=dict(dataset=mini.config())))
    (report,) = reports = check_data(cfg, ['train'], progress=False)
    assert not report.errors and len(report.remarks) == 4
    text = format_reports(reports)
    assert text.count('remark: ') == 4 and 'image_1.jpg has EXIF orientation 6' in text
    draw(mini, 1)
    assert not check_data(cfg, ['train'], progress=False)[0].remarks


def test_check_data_remarks_that_two_images_have_one_file(mini):
    mini.instances['images'][1].update(
        {key: mini.instances['images'][0][key] for key in ('file_name', 'height', 'width')}
    )
    cfg = Config(dict(train_dataloader=dict(dataset=mini.write().config())))
    (report,) = check_data(cfg, ['train'], progress=False)
    assert any('is the file of 2 images' in remark for remark in report.remarks)


def test_16_bits_are_the_same_everywhere(mini, tmp_path):
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 21
    for image in mini.instances['images']:
        _, content = cv2.imencode('.png', values + image['id'])
        (mini.root / 'images' / image['file_name']).write_bytes(content.tobytes())
    dataset = build(mini, *LOAD)
    for row, seen in enumerate(mined_pictures(dataset, tmp_path)):
        high = np.dstack([(values + row + 1) >> 8] * 3)
        np.testing.assert_array_equal(seen, high)
        np.testing.assert_array_equal(make_item(dataset.pool.path(row), ['box'])['img'], high)
        np.testing.assert_array_equal(arrays_of(dataset[SampleIndex(row, 0, 0)])[0], high)


@pytest.mark.parametrize('option', ['color_type', 'imdecode_backend', 'to_float32', 'anything'])
def test_the_loading_of_images_has_no_options(option):
    """Options of mmcv's transform would contradict the one rule, or be ignored."""
    with pytest.raises(TypeError, match='LoadReferringImage'):
        TRANSFORMS.build(dict(type='LoadReferringImage', **{option: 'cv2'}))


def faulty_files(path):
    """Contents that are no whole image of the annotated size."""
    rgb = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(path, quality=95)
    whole, middle = path.read_bytes(), path.stat().st_size // 2
    noise = b'\xff\xc7' * 200  # markers: of zeros alone no decoder can tell
    at = whole.index(b'\xff\xc0') + 5
    yield 'cut', whole[:middle]
    yield 'overwritten', whole[:middle] + noise + whole[middle + 400 :]
    yield 'bomb', whole[:at] + b'\xff\xdc\xff\xdc' + whole[at + 4 :]
    yield 'empty', b''


def test_a_damaged_image_is_refused_by_all_with_its_path(mini, tmp_path):
    path = mini.root / 'images' / 'image_2.jpg'
    dataset = build(mini, *LOAD)
    mosaic = mosaic_config(size=(96, 128), transforms=LOAD, random=1.0, mined=0.0)
    of_files = build(mini, mosaic)
    cfg = Config(dict(train_dataloader=dict(dataset=mini.config())))
    for what, content in faulty_files(path):
        path.write_bytes(content)
        tiled = build(mini, dict(mosaic, tiles=dict(path=str(tmp_path / what))))
        for read in (
            lambda: dataset[SampleIndex(1, 0, 0)],
            lambda: [of_files[SampleIndex(0, epoch, 0)] for epoch in range(9)],
            lambda tiled=tiled: tiles_of(tiled),
            lambda what=what: mined_pictures(dataset, tmp_path / f'{what}.vectors'),
            lambda: make_item(str(path), ['box']),
        ):
            with pytest.raises(ValueError, match='image_2.jpg') as found:
                read()
            assert str(path) in str(found.value)
        (error,) = check_data(cfg, ['train'], progress=False)[0].errors
        assert error.startswith('image 2: cannot read the image ') and str(path) in error


@pytest.fixture
def foldered(mini):
    """Images of one name in several folders, and names that are written in other ways."""
    names = ['part0/x.jpg', './part1/x.jpg', 'a/../x.jpg', 'part1//deep/./x.jpg', 'part0/y.jpg']
    for image, name in zip(mini.instances['images'], names):
        image['file_name'] = name
    (mini.root / 'mini' / 'instances.json').write_text(json.dumps(mini.instances))
    shutil.rmtree(mini.root / 'images')
    for image, name in zip(mini.instances['images'], PLAIN):
        image['file_name'] = name
    return mini


PLAIN = ['part0/x.jpg', 'part1/x.jpg', 'x.jpg', 'part1/deep/x.jpg', 'part0/y.jpg']


def test_names_keep_their_folders(foldered, tmp_path):
    pictures = draw(foldered)
    mosaic = mosaic_config(
        size=(2 * HEIGHT, 2 * WIDTH), transforms=LOAD, mined=1.0, tau_mode='rank', tau=0, top_k=3,
        bank=dict(path=str(tmp_path / 'bank')), tiles=dict(path=str(tmp_path / 'tiles')),
    )  # fmt: skip
    dataset = build(foldered, mosaic)
    assert dataset.pool.names.tolist() == PLAIN[:4]
    write_bank(dataset, tmp_path / 'bank', [0.1, 0.2, 0.3, 0.4])
    make([one for one in requirements_of(dataset) if 'tiles' in str(one)][0], 0, progress=False)
    for index in range(4):
        sample = dataset[SampleIndex(index, 0, 0)]
        picture, chosen = arrays_of(sample)[0], sample['data_samples'].mosaic
        shown = list(chosen['names'])
        assert chosen['kind'] == 'mined' and len(shown) == 3
        shown.insert(chosen['cell'], PLAIN[index])
        assert sorted(shown) == sorted(PLAIN[:4])
        for cell, name in enumerate(shown):
            row, column = divmod(cell, 2)
            place = np.s_[row * HEIGHT : (row + 1) * HEIGHT, column * WIDTH : (column + 1) * WIDTH]
            np.testing.assert_array_equal(picture[place], pictures[name][..., ::-1])
    seen = mined_pictures(dataset, tmp_path)
    for name, one in zip(PLAIN, seen):
        np.testing.assert_array_equal(one, pictures[name])


def test_an_image_that_is_not_in_its_folder_is_missed(foldered):
    draw(foldered)
    (foldered.root / 'images' / 'part1' / 'deep' / 'x.jpg').rename(foldered.root / 'x.jpg')
    with pytest.raises(FileNotFoundError, match=r"1 images.*the first: 'part1/deep/x\.jpg'"):
        build(foldered).full_init()


@pytest.mark.parametrize('name', ['/etc/x.jpg', '../x.jpg', 'a/../../x.jpg', '', 7, None])
def test_a_name_that_leads_out_of_the_folder_is_refused(mini, name):
    mini.instances['images'][1]['file_name'] = name
    (mini.root / 'mini' / 'instances.json').write_text(json.dumps(mini.instances))
    with pytest.raises(ValueError, match=r'instances\.json: .*2.*file_name'):
        build(mini).full_init()


def test_other_forms_of_a_plain_name_do_not_change_the_fingerprint(mini):
    expected = build(mini).fingerprint
    for image in mini.instances['images']:
        image['file_name'] = f'./{image["file_name"]}'
    (mini.root / 'mini' / 'instances.json').write_text(json.dumps(mini.instances))
    assert build(mini).fingerprint == expected
    # As it was before names could have folders: banks on disk carry it.
    assert expected == PINNED


PINNED = '7f6c8f4c8b201fe2d1aa0385e79d6ea37b83e7f410cf2f40aa82303e020d8d58'


def test_the_leak_guard_tells_folders_apart(tmp_path):
    refs = [
        dict(split='val', file_name='part0/x.jpg'),
        dict(split='val', file_name='./part1/sub/y_12.jpg'),
        dict(split='val', file_name='z.jpg'),
        dict(split='val', file_name='part0/COCO_train2014_000000000009_3.jpg'),
    ]
    (tmp_path / 'refs.json').write_text(json.dumps(refs))
    split_images.cache_clear()
    guard = LeakGuard(['refs.json'], str(tmp_path))
    leaked = {
        'part0/x.jpg': True,
        'part1/x.jpg': False,
        'x.jpg': True,  # of a folder that is not named: it may be that one
        'train/part0/x.jpg': True,
        'apart0/x.jpg': False,
        'part1/sub/y.jpg': True,
        'sub/y.jpg': True,
        'other/y.jpg': False,
        'anywhere/z.jpg': True,
        'part7/000000000009.jpg': True,
    }
    assert dict(zip(leaked, guard.leaked(list(leaked)).tolist())) == leaked


def test_files_of_one_name_and_size_in_a_folder_of_negatives(foldered, tmp_path):
    draw(foldered)
    data, folder = build(foldered), tmp_path / 'negatives'
    for name in PLAIN:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Of one size: what follows an image's end is not read.
        content = (foldered.root / 'images' / name).read_bytes()
        for path in (target, foldered.root / 'images' / name):
            path.write_bytes(content.ljust(5000, b' '))
    pool = folder_pool(str(folder))
    found = [pool.find(i, data.pool.path(row)) for row, i in enumerate(data.pool.ids)]
    assert [pool.names[row] for row in found] == PLAIN[:4]
    images = BankImages(data.pool, str(folder))
    assert [images.names[row] for row in images.rows] == PLAIN[:4] and len(images) == len(PLAIN)
    part = FolderPool(str(folder)).subset(np.array([0, 3]))
    assert part.names[part.find(0, str(folder / part.names[1]))] == part.names[1]
