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
from mmengine.config import Config

from nemo_mmseg.datasets.refcoco import RefCOCODataset
from nemo_mmseg.datasets.transforms.nemo.nemo_mosaic import NeMoMosaic
from nemo_mmseg.mining import requirements as wanted
from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankError, NegativeBank
from nemo_mmseg.negatives.leak_guard import LeakError, LeakGuard, image_key, overlap_table
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
        ('a/9.png', '9.png'),
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
    with pytest.raises(LeakError, match='Without them there are fewer than 2'):
        LeakGuard(FILES, str(root), action='drop').clean(pool_of([1, 2, 3, 4]))


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(split_files=FILES, action='ignore'), ValueError, "neither 'error' nor 'drop'"),
        (dict(split_files=()), ValueError, 'must be a list'),
        (dict(split_files='a/refs(unc).p'), ValueError, 'must be a list'),
        (dict(split_files=('c/refs(unc).p',)), FileNotFoundError, 'there is no .*c/refs'),
        (dict(split_files=FILES[:1], splits=('test',)), ValueError, 'none of the splits'),
    ],
)
def test_wrong_settings(root, settings, error, message):
    with pytest.raises(error, match=message):
        LeakGuard(data_root=str(root), **settings)


@pytest.mark.parametrize(
    ('options', 'what'),
    [
        ('drop', 'must be a mapping'),
        (['a/refs(unc).p'], 'must be a mapping'),
        (dict(data_root='data/'), "'split_files'"),
        (dict(split_files=['a/refs(unc).p'], acton='drop'), "'acton'"),
        (dict(split_files=5), 'split_files=5 is no list'),
        (dict(split_files='a/refs(unc).p'), 'is no list'),
    ],
)
def test_other_things_than_its_arguments_are_named(root, options, what):
    with pytest.raises(ValueError, match=f'must be a dict such as .*action=.*{what}'):
        LeakGuard.from_config(options)
    data = dict(data_root=str(root), ann_file='a.json', split_file='a/refs(unc).p', split='train')
    with pytest.raises(ValueError, match=f'must be a dict such as .*action=.*{what}'):
        RefCOCODataset(**data, data_prefix={}, leak_guard=options, lazy_init=True)


def test_a_file_without_names_is_named(root):
    (root / 'a' / 'refs(unc).p').write_bytes(pickle.dumps([dict(split='val')]))
    with pytest.raises(ValueError, match=r'a/refs\(unc\).p: a reference lacks .*file_name'):
        LeakGuard(FILES, str(root))


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


@pytest.mark.parametrize('top_k', [1, 3, 10, 30])
@pytest.mark.parametrize('stored', [49, 25])
def test_the_band_goes_on_behind_what_is_dropped(root, top_k, stored):
    rng = np.random.default_rng(0)
    names = [coco(i) for i in range(50)]
    similarities = rng.random((8, 50))
    order = np.argsort(-similarities[:, 1:], axis=1)[:, :stored] + 1  # image 0 is everyone's own
    best = np.take_along_axis(similarities, order, axis=1)
    path = root / 'bank.safetensors'
    with BankWriter(
        path, np.arange(8), np.zeros(8, np.int64), np.arange(50), names, np.zeros((50, 2)), stored,
        dict(fingerprint='f' * 64),
    ) as writer:  # fmt: skip
        writer.write(np.arange(8), order, best, np.ones(8))
    write_refs(root / 'c' / 'refs(unc).p', train=[100], val=(rng.permutation(49)[:20] + 1).tolist())
    guard = LeakGuard(['c/refs(unc).p'], str(root), action='drop')
    held_out = [int(key) for key in guard.held_out['c/refs(unc).p val']]
    bank, rule = NegativeBank(path), BandRule(tau=0.9, tau_mode='absolute', top_k=top_k)
    sizes = bank.band_sizes(*rule, guard.leaked_rows(bank))
    for sent_id in range(8):
        band = guard.band(bank, sent_id, rule)
        assert len(band.rows) == sizes[sent_id]
        expected = [
            row for row, similarity in zip(order[sent_id], best[sent_id])
            if np.float16(similarity) <= 0.9 and row not in held_out
        ]  # fmt: skip
        assert band.rows.tolist() == expected[:top_k]
        np.testing.assert_allclose(band.similarities, similarities[sent_id, band.rows], atol=1e-3)
        assert band.truncated == (stored < 49 and len(expected) < top_k)


@pytest.mark.parametrize(('kept', 'counts'), [(3, (8, 0)), (4, (0, 0)), (1, (8, 8))])
def test_bands_are_checked_without_what_is_dropped(root, monkeypatch, kept, counts):
    path = root / 'bank.safetensors'
    with BankWriter(
        path, np.arange(8), np.zeros(8, np.int64), np.arange(50), [coco(i) for i in range(50)],
        np.zeros((50, 2)), 49, dict(fingerprint='f' * 64),
    ) as writer:  # fmt: skip
        rows = np.tile(np.arange(1, 50), (8, 1))
        writer.write(np.arange(8), rows, np.full((8, 49), 0.5), np.ones(8))
    write_refs(root / 'c' / 'refs(unc).p', train=[100], val=range(kept, 50))
    guard = LeakGuard(['c/refs(unc).p'], str(root), action='drop')
    mosaic = NeMoMosaic((64, 64), [], dict(path=str(path)), tau=0, tau_mode='rank')
    mosaic.leak_guard, messages = guard, []
    monkeypatch.setattr(wanted, 'print_log', lambda text, *args: messages.append(text))
    if kept == 1:  # image 0 is everyone's own
        with pytest.raises(BankError, match='top_k=100, with the leak guard, drops all 49'):
            wanted.check_band(wanted.WantedBank(None, mosaic), NegativeBank(path))
        return
    (sizes,) = wanted.check_band(wanted.WantedBank(None, mosaic), NegativeBank(path))
    assert sizes.tolist() == [kept - 1] * 8
    short, none = counts
    assert f'{short} of 8 expressions have fewer than the 3' in messages[0]
    assert f'{none} have none' in messages[0]


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
