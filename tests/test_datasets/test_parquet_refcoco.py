"""RefCOCO from Parquet equals RefCOCO from its pickle; damaged files are named."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from check_data import check_data
from mmengine.config import Config
from mmseg.registry import DATASETS
from nemo_helpers import mosaic_config
from parquet_files import REFCOCO, refcoco_rows, write

from nemo_mmseg.datasets.fingerprint import Fingerprint, SplitCounts
from nemo_mmseg.datasets.parquet_refcoco import load_parquet_references
from nemo_mmseg.negatives.leak_guard import LeakError, split_images
from nemo_mmseg.utils.faults import DataError
from nemo_mmseg.utils.parquet import find_shards, import_pyarrow

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]


def settings(mini, source, **kwargs):
    own = dict(type='ParquetRefCOCODataset', ann_file=source, dataset='refcoco')
    cfg = mini.config(LOAD, **{**own, **kwargs})
    del cfg['split_file']
    return cfg


def hub_folder(mini, rows=None):
    """A folder as `hf download --local-dir` makes it; val in one file, train in two."""
    folder = mini.root / 'hub' / 'data'
    train = refcoco_rows(mini, 'train') if rows is None else rows
    write(folder / 'train-00000-of-00002-1a2b.parquet', train[:3], REFCOCO)
    write(folder / 'train-00001-of-00002-3c4d.parquet', train[3:], REFCOCO)
    val = [dict(row, split='validation') for row in refcoco_rows(mini, 'val')]
    write(folder / 'validation-00000-of-00001.parquet', val, REFCOCO)
    return folder.parent


@pytest.mark.filterwarnings('ignore:.*were published')
@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('text_key', ['sent', 'raw'])
def test_items_and_masks_are_those_of_the_pickle(mini, split, text_key):
    hub_folder(mini)
    options = dict(split=split, text_key=text_key, group_by='image')
    parquet = DATASETS.build(settings(mini, 'hub', **options))
    pickle = DATASETS.build(mini.config(LOAD, **options))
    assert len(parquet) == len(pickle) > 0
    for index in range(len(pickle)):
        ours, theirs = parquet.get_data_info(index), pickle.get_data_info(index)
        # The files hold no objects beside those that are described.
        assert set(ours.pop('num_distractors')) == {-1} and theirs.pop('num_distractors')
        assert ours == theirs
        masks = [dataset[index]['gt_seg_map'] for dataset in (parquet, pickle)]
        np.testing.assert_array_equal(*masks)
    assert parquet.fingerprint == pickle.fingerprint, 'one bank serves both'


@pytest.mark.filterwarnings('ignore:.*were published')
def test_a_data_set_in_the_cache_of_the_hub_is_found(mini, monkeypatch):
    import huggingface_hub

    commit = '0' * 40
    cached = mini.root / 'cache' / 'datasets--jxu124--refcoco'
    (cached / 'refs').mkdir(parents=True)
    (cached / 'refs' / 'main').write_text(commit)
    (cached / 'snapshots').mkdir()
    hub_folder(mini).rename(cached / 'snapshots' / commit)
    search = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub,
        'snapshot_download',
        lambda *args, **kwargs: search(*args, cache_dir=mini.root / 'cache', **kwargs),
    )
    dataset = DATASETS.build(settings(mini, 'jxu124/refcoco', split='val'))
    assert dataset.get_data_info(0)['expressions'] == ['box of val']
    with pytest.raises(FileNotFoundError, match='hf download jxu124/refcocog --repo-type dataset'):
        find_shards('jxu124/refcocog', ('val',))
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(FileNotFoundError, match='pip install huggingface_hub'):
        find_shards('jxu124/refcoco', ('val',))


def test_a_missing_library_split_or_folder_is_named(mini, monkeypatch):
    folder = hub_folder(mini)
    with pytest.raises(FileNotFoundError, match="'testB'; it has: train, validation"):
        find_shards(str(folder), ('testB',))
    with pytest.raises(FileNotFoundError, match='there is no folder /no/where/at/all'):
        find_shards('/no/where/at/all', ('val',))
    with pytest.raises(ValueError, match="split='test' is none of .*testB"):
        DATASETS.build(settings(mini, 'hub', split='test'))
    with pytest.raises(ValueError, match="dataset='refclef' is none of"):
        DATASETS.build(settings(mini, 'hub', dataset='refclef'))
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r'RefCOCO needs pyarrow .*nemo-mmsegmentation\[parquet'):
        import_pyarrow('RefCOCO')


def test_parts_that_are_missing_or_there_twice_are_named(mini):
    folder = hub_folder(mini)
    (folder / 'data' / 'train-00001-of-00002-3c4d.parquet').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"1 of the 2 files of the split 'train'; missing: train-00001-of-00002\.parquet",
    ):
        find_shards(str(folder), ('train',))
    assert len(find_shards(str(folder), ('val', 'validation'))) == 1
    first = str(folder / 'data' / 'train-00000-of-00002-1a2b.parquet')
    assert find_shards(first, ('train',)) == [first], 'a part that was asked for'
    for other in ('train-00000-of-00002.parquet', 'train-00000-of-00003.parquet', 'train.parquet'):
        path = write(folder / other, refcoco_rows(mini, 'train'), REFCOCO)
        with pytest.raises(ValueError, match="has the split 'train' more than once: .*" + other):
            find_shards(str(folder), ('train',))
        path.unlink()


@pytest.mark.filterwarnings('ignore:.*were published')
def test_the_name_of_a_config_is_kept(mini):
    hub_folder(mini)
    assert DATASETS.build(settings(mini, 'hub')).metainfo['dataset_name'] == 'refcoco'
    named = DATASETS.build(settings(mini, 'hub', metainfo=dict(dataset_name='mine')))
    assert named.metainfo['dataset_name'] == 'mine'


def test_splits_and_images_of_parquet_are_those_of_the_pickle(mini):
    folder = hub_folder(mini)
    of_pickle = split_images(str(mini.root / 'mini' / 'refs(unc).p'))
    of_parquet = split_images(str(folder))
    assert of_parquet == {split: of_pickle[split] for split in ('train', 'val')}


@pytest.mark.filterwarnings('ignore:.*were published')
def test_a_folder_of_negatives_with_test_images_is_refused(mini):
    hub_folder(mini)
    val = {row['image_id'] for row in refcoco_rows(mini, 'val')}
    folder = mini.root / 'negatives'
    folder.mkdir()
    for image in mini.instances['images']:
        (folder / image['file_name']).write_bytes(
            (mini.root / 'images' / image['file_name']).read_bytes()
        )
    bank = dict(path='none', images=str(folder))
    mosaic = mosaic_config(transforms=LOAD, mined=0, random=1.0, bank=bank)
    with pytest.raises(LeakError, match=rf'{len(val)} of the .* of .*hub val'):
        DATASETS.build({**settings(mini, 'hub'), 'pipeline': [mosaic]})


def changed(key, value):
    def change(rows):
        rows[1][key] = value

    return change


def changed_json(column, key, value):
    def change(rows):
        rows[1][column] = json.dumps({**json.loads(rows[1][column]), key: value})

    return change


def blank_expression(rows):
    rows[1]['sentences'][0]['sent'] = ' '


def too_small_mask(rows):
    rle = dict(size=[24, 32], counts=[0, 768])
    changed_json('raw_anns', 'segmentation', rle)(rows)


# What is wrong in the second row, and what the message names.
FAULTS = [
    (changed('ref_id', 1), ['row 1: ref_id is 1', 'row 0 has it']),
    (changed('ann_id', None), ['row 1: ann_id is None', 'whole number']),
    (changed('image_id', 77), ['row 1: raw_image_info: id is 2; allowed: 77, the image_id']),
    (changed('split', 'testA'), ["row 1: split is the text 'testA'; allowed: 'train'"]),
    (changed('sentences', None), ['row 1: sentences is None; allowed: a list']),
    (changed('sentences', []), ['reference 2: sentences is []', 'at least one expression']),
    (changed('raw_anns', '{"id": 102'), ['row 1: raw_anns is the text', 'a JSON object']),
    (changed('raw_anns', '[' * 9999), ['row 1: raw_anns is the text', 'a JSON object']),
    (changed('raw_image_info', '7'), ['row 1: raw_image_info is the text', 'a JSON object']),
    (changed_json('raw_image_info', 'width', '64'), ["image 2: width is the text '64'"]),
    (changed_json('raw_anns', 'image_id', 3), ['reference 2: image_id is 2']),
    (too_small_mask, ['annotation 102: size of segmentation is [24, 32]; allowed: [48, 64]']),
    (blank_expression, ['reference 2: expression 20: sent is', 'not blank']),
]


@pytest.mark.parametrize('change, parts', FAULTS)
def test_a_fault_names_file_row_or_id_field_and_what_is_allowed(mini, change, parts):
    rows = refcoco_rows(mini, 'train')
    change(rows)
    file = str(write(mini.root / 'train.parquet', rows, REFCOCO))
    with pytest.raises(DataError) as caught:
        load_parquet_references(file, 'train')
    assert all(part in str(caught.value) for part in [file, 'allowed: ', *parts])
    errors = []
    references = load_parquet_references(file, 'train', errors=errors)
    assert [one.ref_id for one in references] == [1, 3, 4, 5] and str(caught.value) in errors


def test_a_missing_column_and_one_of_another_type_are_named(mini):
    rows = refcoco_rows(mini, 'train')
    file = mini.root / 'train.parquet'
    write(file, rows, REFCOCO.remove(REFCOCO.get_field_index('raw_anns')))
    with pytest.raises(
        DataError, match=r"train.parquet: column 'raw_anns' is missing; allowed: .*"
    ):
        load_parquet_references(str(file), 'train')
    place = REFCOCO.get_field_index('ref_id')
    other = REFCOCO.set(place, REFCOCO.field(place).with_type(pa.string()))
    write(file, [dict(row, ref_id=str(row['ref_id'])) for row in rows], other)
    with pytest.raises(DataError, match="row 0: ref_id is the text '1'; allowed: a whole number"):
        load_parquet_references(str(file), 'train')


@pytest.mark.parametrize('share', [0.0, 0.3, 0.6, 0.99])
def test_a_file_that_is_cut_short_is_named(mini, share):
    file = Path(write(mini.root / 'train.parquet', refcoco_rows(mini, 'train'), REFCOCO))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r'train.parquet is not a whole Parquet file \(cut short'):
        load_parquet_references(str(file), 'train')


def test_damage_inside_a_file_is_no_other_error(mini):
    file = Path(write(mini.root / 'train.parquet', refcoco_rows(mini, 'train'), REFCOCO))
    content, rng = bytearray(file.read_bytes()), np.random.default_rng(0)
    for place in rng.integers(4, len(content) - 8, 60):
        damaged = content.copy()
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        try:
            load_parquet_references(str(file), 'train')
        except ValueError as error:
            assert 'train.parquet' in str(error)


@pytest.mark.filterwarnings('ignore:.*were published')
def test_check_data_lists_all_faults(mini):
    rows = refcoco_rows(mini, 'train')
    blank_expression(rows)
    rows[2]['raw_anns'] = ''
    hub_folder(mini, rows)
    cfg = dict(dataset=settings(mini, 'hub'))
    (report,) = check_data(Config(dict(train_dataloader=cfg)), ['train'], progress=False)
    assert len(report.errors) == 2 and report.counts['references'] == 3
    assert any('reference 2: expression 20: sent' in error for error in report.errors)
    assert any('row 2: raw_anns' in error for error in report.errors)


class Counted:
    """Stands for references: as many as asked for, of two expressions each, one image."""

    def __init__(self, number):
        self.sent_ids, self.image = (2 * number, 2 * number + 1), dict(id=number % 3)


def test_a_fingerprint_counts_and_digests_sentence_ids():
    first = Fingerprint.of([Counted(0), Counted(1)])
    assert first.counts == SplitCounts(2, 4, 2)
    # sha256 of b'0\n1\n2\n3', as sha256sum prints it
    assert first.digest == '9d3d950edf1e7c77'
    assert Fingerprint.of([Counted(1), Counted(0)]) == first
    assert Fingerprint.of([Counted(0), Counted(2)]).digest != first.digest


def test_a_split_of_another_name_is_recognized_by_its_counts():
    name = 'refcoco/refs(unc)'
    test_a = Fingerprint(SplitCounts(1975, 5657, 750), '')
    assert test_a.remark(name, 'testA') is None
    assert test_a.remark(name, 'val').endswith('by its counts it is refcoco/refs(unc) testA')
    mirror = Fingerprint(SplitCounts(8811, 22000, 4000), '')
    assert 'lmms-lab' in mirror.remark(name, 'val')
    assert mirror.remark('mine/refs(me)', 'val') is None


@pytest.mark.filterwarnings('ignore:.*were published')
def test_a_mirror_whose_split_is_another_one_is_named(mini):
    hub_folder(mini)
    with pytest.warns(UserWarning, match='1 references, .* but 3811 references, 10834 expressions'):
        DATASETS.build(settings(mini, 'hub', split='val'))
