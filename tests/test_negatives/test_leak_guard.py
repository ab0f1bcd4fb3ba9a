"""Images of validation and test splits stay out of pools of negatives."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from check_overlap import overlap_table
from mmengine.config import Config

from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.negatives.leak_guard import LeakError, LeakGuard, image_key, split_images
from nemo_mmseg.negatives.pool import FolderPool, ImagePool

TOOL = str(Path(__file__).parents[2] / 'tools' / 'misc' / 'check_overlap.py')


def coco(number):
    return f'COCO_train2014_{number:012d}.jpg'


def write_refs(path, **splits):
    """References of images by number, two of each image, as RefCOCO names them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    refs = [
        dict(ref_id=i, image_id=i, split=split, file_name=f'{coco(i)[:-4]}_{ann}.jpg')
        for split, numbers in splits.items()
        for i in numbers
        for ann in (7, 1234567)
    ]
    path.write_bytes(pickle.dumps(refs, protocol=2))


@pytest.fixture
def root(tmp_path):
    write_refs(tmp_path / 'a' / 'refs(unc).p', train=range(0, 50), val=range(50, 60), testA=[60])
    write_refs(tmp_path / 'b' / 'refs(umd).p', train=range(40, 70), val=[1, 2, 3], test=[3, 49])
    return tmp_path


FILES = ('a/refs(unc).p', 'b/refs(umd).p')


def pool_of(numbers, root='images'):
    return ImagePool(root, list(numbers), [coco(i) for i in numbers], 'f' * 64)


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('COCO_train2014_000000000009.jpg', '000000000009'),
        ('folder/COCO_val2014_000000000009.jpg', '000000000009'),
        ('000000000009.jpg', '000000000009'),
        ('holiday_000000000009.jpg', 'holiday_000000000009.jpg'),
        ('./a/9.png', 'a/9.png'),
    ],
)
def test_an_image_is_told_by_cocos_number_or_its_name(name, key):
    assert image_key(name) == key


def test_images_of_other_sets_tests_are_dropped_or_refused(root):
    pool = pool_of(range(0, 50))
    clean = LeakGuard(FILES, str(root), action='drop').clean(pool)
    # Of 0..49 the other set's val and test hold 1, 2, 3 and 49.
    assert clean.ids.tolist() == [0, *range(4, 49)]
    assert clean.names.tolist() == [coco(i) for i in clean.ids] and clean.root == 'images'
    assert clean.fingerprint == pool.fingerprint
    with pytest.raises(LeakError, match=r'4 of the 50 .*3 of b/refs\(umd\).p val.*2 of .* test'):
        LeakGuard(FILES, str(root)).clean(pool)
    only = LeakGuard(FILES, str(root), splits=['test'], action='drop').clean(pool)
    assert only.ids.tolist() == [i for i in range(50) if i not in (3, 49)]
    for fine in (LeakGuard(FILES[:1], str(root)), LeakGuard(FILES, str(root), splits=['testA'])):
        assert fine.clean(pool) is pool


def test_the_base_config_guards_all_of_refcoco(tmp_path):
    base = Path(TOOL).parents[2] / 'configs' / '_base_' / 'leak_guard.py'
    settings = Config.fromfile(base).leak_guard
    for i, file in enumerate(settings.split_files):
        splits = dict(val=[2 * i], testA=[2 * i + 1]) if 'unc' in file else dict(val=[2 * i])
        write_refs(tmp_path / file, train=[90], **splits)
    guard = LeakGuard(**{**settings, 'data_root': str(tmp_path)})
    assert guard.clean(pool_of(range(10))).ids.tolist() == [5, 7, 8, 9]


def test_dropping_all_is_an_error(root):
    with pytest.raises(LeakError, match='if at least 2 are left'):
        LeakGuard(FILES, str(root), action='drop').clean(pool_of([1, 2, 3, 4]))


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(split_files=FILES, action='ignore'), ValueError, "action='ignore' must be"),
        (dict(split_files=()), ValueError, 'must be files with the splits'),
        (dict(split_files=('c/refs(unc).p',)), FileNotFoundError, 'c/refs'),
        (dict(split_files=FILES[:1], splits=('test',)), ValueError, r"the splits \('test',\)"),
        (dict(split_files=FILES, acton='drop'), TypeError, "argument 'acton'"),
    ],
)
def test_wrong_settings(root, settings, error, message):
    with pytest.raises(error, match=message):
        LeakGuard(data_root=str(root), **settings)


def test_a_file_without_names_is_named(root):
    (root / 'a' / 'refs(unc).p').write_bytes(pickle.dumps([dict(split='val')]))
    with pytest.raises(
        ValueError, match=r'a/refs\(unc\).p: reference at .* 0: file_name is missing'
    ):
        LeakGuard(FILES, str(root))


LAUGHS = ['ha']
for _ in range(40):
    LAUGHS = [LAUGHS, LAUGHS]


@pytest.mark.parametrize(
    'field, value',
    [
        *(('split', value) for value in (None, 1, True, -0.0, ['val'], b'val', LAUGHS)),
        *(('file_name', value) for value in (None, 5, '', '../x.jpg', ['x.jpg'], LAUGHS)),
    ],
)
def test_a_faulty_reference_is_named_and_not_overlooked(root, field, value):
    ref = {'ref_id': 7, 'ann_id': LAUGHS, 'split': 'val', 'file_name': coco(5), field: value}
    (root / 'a' / 'refs(unc).p').write_bytes(pickle.dumps([ref]))
    split_images.cache_clear()
    with pytest.raises(ValueError, match=rf'refs\(unc\)\.p: reference 7: {field} is .*; allowed: '):
        LeakGuard(FILES, str(root))


@pytest.mark.parametrize('content', [{}, 'refs', None, [5], [[]]])
def test_what_is_no_list_of_references_is_named(root, content):
    (root / 'a' / 'refs(unc).p').write_bytes(pickle.dumps(content))
    split_images.cache_clear()
    with pytest.raises(ValueError, match=r'a/refs\(unc\)\.p: .*; allowed: a (list|dict)'):
        LeakGuard(FILES, str(root))


def test_a_number_that_belongs_to_the_image_is_kept(tmp_path):
    refs = [
        dict(split='val', ann_id=900, file_name='img_12.jpg'),  # may be either
        dict(split='val', ann_id=34, file_name='pic_34.jpg'),  # the annotation's
        dict(split='val', ann_id=900, file_name='COCO_train2014_000000000009_12.jpg'),
    ]
    (tmp_path / 'refs.json').write_text(json.dumps(refs))
    split_images.cache_clear()
    leaked = {
        'img_12.jpg': True, 'img.jpg': True, 'img_1.jpg': False, 'pic.jpg': True,
        'pic_34.jpg': False, '000000000009.jpg': True, '000000000012.jpg': False,
    }  # fmt: skip
    guard = LeakGuard(['refs.json'], str(tmp_path))
    assert dict(zip(leaked, guard.leaked(list(leaked)).tolist())) == leaked


def test_grefcocos_file_is_read_too(tmp_path):
    refs = [dict(split='val', file_name=coco(5)), dict(split='train', file_name=coco(6))]
    (tmp_path / 'grefs(unc).json').write_text(json.dumps(refs))
    guard = LeakGuard(['grefs(unc).json'], str(tmp_path), action='drop')
    assert guard.clean(pool_of(range(4, 8))).ids.tolist() == [4, 6, 7]


def test_a_folder_is_guarded_and_names_of_2017_are_known(root):
    folder = root / 'folder'
    (folder / 'sub').mkdir(parents=True)
    names = [coco(49), coco(4), 'sub/000000000003.jpg', 'sub/other.png', 'holiday.jpg']
    for name in names:
        cv2.imwrite(str(folder / name), np.zeros((4, 4, 3), np.uint8))
    guard = LeakGuard(FILES, str(root), action='drop')
    clean = guard.clean(FolderPool(str(folder)))
    assert clean.names.tolist() == [coco(4), 'holiday.jpg', 'sub/other.png']
    # The own image is still found where it is left, and only there.
    (root / 'train').mkdir()
    for name in (coco(4), coco(49)):
        os.link(folder / name, root / 'train' / name)
    assert clean.find(4, str(root / 'train' / coco(4))) == 0
    assert clean.find(49, str(root / 'train' / coco(49))) is None


def test_the_rows_of_a_bank_that_are_held_out(root):
    path = root / 'bank.safetensors'
    names = [coco(i) for i in range(50)]
    metadata = dict(fingerprint='f' * 64)
    with BankWriter(path, [1], [0], np.arange(50), names, np.zeros((50, 2)), 0, metadata):
        pass
    leaked = LeakGuard(FILES, str(root), action='drop').leaked_rows(NegativeBank(path))
    assert np.flatnonzero(leaked).tolist() == [1, 2, 3, 49]


def test_overlap_table_counts_shared_images(root):
    folder = root / 'folder'
    folder.mkdir()
    for name in ('000000000055.jpg', '000000000049.jpg', 'x.jpg'):
        cv2.imwrite(str(folder / name), np.zeros((4, 4, 3), np.uint8))
    table = overlap_table([str(root / file) for file in FILES], [str(folder)])
    assert table.field_names[:2] == ['images in both', 'all']
    assert table.field_names[2:] == ['a (unc) train', 'b (umd) train', str(folder)]
    assert table.rows == [
        ['all', '', 50, 30, 3],
        ['a (unc) testA', 1, 0, 1, 0],
        ['a (unc) val', 10, 0, 10, 1],
        ['b (umd) test', 2, 2, 1, 1],
        ['b (umd) val', 3, 3, 0, 0],
    ]


def test_the_tool_prints_the_table(root):
    command = [sys.executable, '-W', 'ignore', TOOL, '--data-root', str(root)]
    run = subprocess.run([*command, *FILES], capture_output=True, text=True)
    assert run.returncode == 0 and '| b (umd) test   |   2 |             2 |' in run.stdout
    assert 'Not compared' not in run.stdout
    for arguments in (('c/refs(unc).p',), (*FILES, '--folder', str(root / 'nowhere'))):
        run = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert run.returncode == 1 and len(run.stderr.strip().splitlines()) == 1
        assert re.match(r'there is no .*c/refs|the folder .*nowhere is missing', run.stderr)
    (root / 'a').rename(root / 'refcoco')
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0 and '| refcoco (unc) val   |  10 |' in run.stdout
    assert re.search(r'Not compared.*refcoco\+/refs\(unc\).*refcocog.*grefcoco', run.stdout)
