"""The cache of annotations against reading the files each time."""

import gc
import json
import multiprocessing
import os
import pickle
import warnings
from pathlib import Path

import pytest
from mmseg.registry import DATASETS

from nemo_mmseg.datasets import base as referring
from nemo_mmseg.datasets.annotation_cache import decode_item, encode_items, read_items
from nemo_mmseg.datasets.refcoco import RefCOCODataset
from nemo_mmseg.utils.fileio import collector_paused
from nemo_mmseg.utils.user_cache import user_cache


def files_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def items_of(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


@pytest.fixture
def readings(monkeypatch):
    """How often annotations have been parsed."""
    count, read = [], RefCOCODataset.load_reference_list
    monkeypatch.setattr(
        RefCOCODataset,
        'load_reference_list',
        lambda self, faults=None: count.append(1) or read(self, faults),
    )
    return count


@pytest.mark.parametrize('group_by', ['reference', 'expression', 'image'])
def test_the_data_set_is_the_same_without_cache_when_it_is_made_and_from_it(
    mini, tmp_path, readings, group_by
):
    mini.instances['annotations'][0]['segmentation'] = [[4, 3.25, 24, 3, 24, 18.1, 4, 1e-7]]
    mini.refs[0]['sentences'][0]['sent'] = 'linke Kiste, größer \u4e2d\U0001f600 "x"\n\\'
    mini.write()
    plain = DATASETS.build(mini.config(group_by=group_by, cache=False))
    cached = [
        DATASETS.build(mini.config(group_by=group_by, cache=str(tmp_path / 'c'))) for _ in range(2)
    ]
    assert len(readings) == 2 and len(files_in(tmp_path / 'c')) == 1
    for dataset in cached:
        assert len(dataset) == len(plain) and dataset.fingerprint == plain.fingerprint
        # repr: 1 and 1.0 are equal, but not the same
        assert repr(items_of(dataset)) == repr(items_of(plain))
        assert dataset.get_data_info(-1) == plain.get_data_info(-1)
        assert dataset.pool.ids.tolist() == plain.pool.ids.tolist()
        assert dataset.pool.names.tolist() == plain.pool.names.tolist()
        assert dataset.pool.path(0) == plain.pool.path(0)
        assert [x if isinstance(x, list) else x.tolist() for x in dataset.expressions()] == [
            x if isinstance(x, list) else x.tolist() for x in plain.expressions()
        ]
        subset = dataset.get_subset([2, 0])
        assert repr(items_of(subset)) == repr(items_of(plain.get_subset([2, 0])))
        with pytest.raises(IndexError):
            dataset.get_data_info(len(dataset))


def test_an_item_is_nobody_elses(mini, tmp_path):
    dataset = DATASETS.build(mini.config(cache=str(tmp_path / 'c')))
    dataset.get_data_info(0)['expressions'].append('changed')
    assert 'changed' not in dataset.get_data_info(0)['expressions']


def test_a_changed_file_of_equal_size_and_time_is_noticed(mini, tmp_path, readings):
    config = mini.config(cache=str(tmp_path / 'c'))
    before = DATASETS.build(config)
    file = mini.root / 'mini' / 'instances.json'
    stat, text = file.stat(), file.read_text()
    file.write_text(text.replace('"area": 300.0', '"area": 400.0', 1))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = DATASETS.build(config)
    assert [d.get_data_info(0)['instances'][0]['area'] for d in (before, after)] == [300, 400]
    assert len(readings) == 2
    assert len(files_in(tmp_path / 'c')) == 1, 'what was made of the older file is gone'


def test_a_changed_file_of_the_guard_is_noticed_within_a_program(mini, tmp_path):
    held_out = mini.root / 'mini' / 'held_out.p'
    split_file = mini.root / 'mini' / 'refs(unc).p'
    held_out.write_bytes(split_file.read_bytes())
    guard = dict(split_files=[str(held_out)], action='drop')
    config = mini.config(cache=str(tmp_path / 'c'), leak_guard=guard)
    first = len(DATASETS.build(config))
    refs = pickle.loads(held_out.read_bytes())
    trained = next(ref for ref in refs if ref['split'] == 'train')
    held_out.write_bytes(pickle.dumps([*refs, dict(trained, split='val')], protocol=2))
    for _ in range(2):
        found = DATASETS.build(config)
        assert trained['image_id'] not in found.pool.ids
        assert len(found) < first


def test_a_file_that_changes_while_it_is_read_is_not_kept(mini, tmp_path, monkeypatch):
    config = mini.config(cache=str(tmp_path / 'c'))
    load = RefCOCODataset.load_data_list

    def change_and_load(self):
        mini.refs[0]['sentences'][0]['sent'] = 'of another file'
        mini.write()
        return load(self)

    monkeypatch.setattr(RefCOCODataset, 'load_data_list', change_and_load)
    assert DATASETS.build(config)[0] is not None
    assert not files_in(tmp_path / 'c')


def test_nothing_foreign_is_removed_and_what_is_unused_goes(mini, tmp_path):
    folder = tmp_path / 'c'
    folder.mkdir()
    digests = f'{"0" * 12}-{"1" * 32}.safetensors'
    foreign = ['a.tmp', 'tiles.safetensors', f'tiles-{"1" * 32}.safetensors', '.x.safetensors.tmp']
    unused = [f'moved-{digests}', f'.moved-{digests}.{"2" * 32}.tmp']
    for name in (*foreign, *unused, f'used-{digests}'):
        (folder / name).touch()
    for name in (*foreign, *unused):
        os.utime(folder / name, (0, 0))
    DATASETS.build(mini.config(cache=str(folder)))
    assert {*foreign, f'used-{digests}'} < set(files_in(folder))
    assert len(files_in(folder)) == len(foreign) + 2


@pytest.mark.parametrize(
    'change',
    [
        dict(split='val'),
        dict(text_key='raw'),
        dict(group_by='image'),
        dict(leak_guard=dict(split_files=['mini/refs(unc).p'], action='drop')),
    ],
)
def test_other_options_are_another_cache(mini, tmp_path, change):
    if 'leak_guard' in change:
        change['leak_guard']['data_root'] = str(mini.root)
    folder = tmp_path / 'c'
    DATASETS.build(mini.config(cache=str(folder)))
    found = DATASETS.build(mini.config(cache=str(folder), **change))
    assert repr(items_of(found)) == repr(items_of(DATASETS.build(mini.config(**change))))
    assert len(files_in(folder)) == 2


def test_changed_code_is_another_cache(mini, tmp_path, readings, monkeypatch):
    config = mini.config(cache=str(tmp_path / 'c'))
    DATASETS.build(config)
    # one file less that makes the items stands for one whose content differs
    monkeypatch.setattr('nemo_mmseg.datasets.annotation_cache._CODE', ('refer.py',))
    DATASETS.build(config)
    assert len(readings) == 2


DAMAGES = (lambda data: data[:-5], lambda data: b'', lambda data: b'x' * 99)


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_cache_is_made_again(mini, tmp_path, readings, damage):
    config = mini.config(cache=str(tmp_path / 'c'))
    whole = items_of(DATASETS.build(config))
    file = tmp_path / 'c' / files_in(tmp_path / 'c')[0]
    file.write_bytes(damage(file.read_bytes()))
    assert read_items(file) is None
    assert items_of(DATASETS.build(config)) == whole
    assert len(readings) == 2 and read_items(file) is not None


def test_where_nothing_can_be_written_all_goes_on(mini, tmp_path, readings):
    (tmp_path / 'file').write_text('a file where a folder should be')
    config = mini.config(cache=str(tmp_path / 'file' / 'c'))
    plain = DATASETS.build(mini.config())
    for _ in range(2):
        assert items_of(DATASETS.build(config)) == items_of(plain)
    assert len(readings) == 3


def test_by_default_small_annotations_are_read_and_large_ones_kept(
    mini, tmp_path, readings, monkeypatch
):
    monkeypatch.setenv('NEMO_MMSEG_CACHE', str(tmp_path / 'own'))
    assert user_cache('annotations') == tmp_path / 'own' / 'annotations'
    DATASETS.build(mini.config())
    assert not files_in(user_cache('annotations'))
    monkeypatch.setattr(referring, 'CACHED_FROM', 10)
    for _ in range(2):
        DATASETS.build(mini.config())
    assert len(files_in(user_cache('annotations'))) == 1 and len(readings) == 2


def test_a_user_without_a_home_has_no_cache(mini, readings, monkeypatch):
    for name in ('NEMO_MMSEG_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', homeless)
    monkeypatch.setattr(referring, 'CACHED_FROM', 10)
    for _ in range(2):
        DATASETS.build(mini.config())
    assert len(readings) == 2


def test_sub_classes_of_others_and_parts_of_a_data_set_are_not_kept(mini, tmp_path):
    @DATASETS.register_module(force=True)
    class OwnRefCOCO(RefCOCODataset):
        pass

    for change in (dict(type='OwnRefCOCO'), dict(indices=2), dict(serialize_data=False)):
        DATASETS.build(mini.config(cache=str(tmp_path / 'c'), **change))
    assert not files_in(tmp_path / 'c')


def test_what_reading_said_is_said_again(mini, tmp_path):
    (mini.root / 'mini').rename(mini.root / 'refcoco')
    config = mini.config(ann_file='refcoco/instances.json', split_file='refcoco/refs(unc).p')
    for _ in range(2):
        with pytest.warns(UserWarning, match='split train: 5 references, but 42404'):
            DATASETS.build(dict(config, cache=str(tmp_path / 'c')))


def test_a_missing_image_is_noticed_although_annotations_are_cached(mini, tmp_path):
    config = mini.config(cache=str(tmp_path / 'c'))
    DATASETS.build(config)
    (mini.root / 'images' / 'image_3.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='1 images .* the first: image_3.jpg'):
        DATASETS.build(config)


def _build(config, queue):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        queue.put(json.dumps(items_of(DATASETS.build(config))))


def test_several_ranks_at_once_get_the_same(mini, tmp_path):
    config = mini.config(cache=str(tmp_path / 'c'))
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    ranks = [context.Process(target=_build, args=(config, queue)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    found = {queue.get(timeout=120) for _ in ranks}
    for rank in ranks:
        rank.join()
    assert found == {json.dumps(items_of(DATASETS.build(mini.config())))}
    assert len(files_in(tmp_path / 'c')) == 1, 'no parts are left'


def test_text_of_items_and_back():
    items = [dict(a=[1, 1.0, 0.1 + 0.2, 1e300, None, True], b={'ü': []}), dict(), dict(c='\0')]
    texts, ends = encode_items(items)
    assert repr([decode_item(texts, ends, index) for index in range(3)]) == repr(items)


def test_the_collector_comes_back():
    assert gc.isenabled()
    with pytest.raises(KeyError), collector_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
