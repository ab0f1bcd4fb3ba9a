"""The file of response maps gives back what was written, and refuses what it does not belong to."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from safetensors import safe_open

from nemo_mmseg.pseudo_labels.response_maps import (
    ResponseMap,
    ResponseMapError,
    ResponseMaps,
    name_and_digest,
    resize_response,
    write_response_maps,
)

SHAPES = {1: (10, 10), 5: (20, 20), 2: (7, 11), 3: (10, 10), 4: (10, 10)}


def records():
    rng = np.random.default_rng(0)
    maps = {
        ref: rng.standard_normal(shape).astype(np.float32) * 10.0 ** (4 * ref - 12)
        for ref, shape in SHAPES.items()
    }
    return [ResponseMap(ref, 10 * ref, scores, (320, 320)) for ref, scores in maps.items()]


def write(path, dataset, **metadata):
    made = dict(
        dataset=dataset.metainfo['dataset_name'],
        split=dataset.split,
        fingerprint=dataset.fingerprint,
        checkpoint=dict(name='stage1.pth', sha256='ab' * 32),
        selection='prms',
    )
    write_response_maps(path, records(), {**made, **metadata})
    return ResponseMaps(path)


@pytest.fixture
def dataset(mini):
    return DATASETS.build(mini.config())


def test_maps_come_back(tmp_path, dataset):
    maps = write(tmp_path / 'maps.safetensors', dataset)
    assert len(maps) == 5 and maps.ref_ids.tolist() == list(SHAPES)
    assert 5 in maps and 6 not in maps
    for one in records():
        stored = maps.map_of(one.ref_id)
        assert stored.shape == SHAPES[one.ref_id] and stored.dtype == np.float32
        largest = np.abs(one.scores).max()
        np.testing.assert_allclose(stored, one.scores, rtol=6e-4, atol=1e-7 * largest)
        assert maps.record(one.ref_id).sent_id == 10 * one.ref_id
    again = pickle.loads(pickle.dumps(maps))
    np.testing.assert_array_equal(again.map_of(2), maps.map_of(2))


def test_the_file_is_small(tmp_path):
    count = 2000
    scores = np.random.default_rng(0).standard_normal((count, 10, 10)).astype(np.float32)
    maps = [ResponseMap(i, i, one, (320, 320)) for i, one in enumerate(scores)]
    write_response_maps(tmp_path / 'maps', maps, {})
    a_reference = (tmp_path / 'maps').stat().st_size / count
    assert a_reference * 42404 < 11e6


def test_it_is_an_ordinary_safetensors_file(tmp_path, dataset):
    write(tmp_path / 'maps', dataset)
    with safe_open(tmp_path / 'maps', 'np') as file:
        assert json.loads(file.metadata()['nemo_mmseg'])['split'] == 'train'
        assert file.get_tensor('ref_ids').tolist() == list(SHAPES)


def test_a_response_is_resized_twice_and_cut_in_between():
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((4, 6)).astype(np.float32)
    # OpenCV's bilinear resize has align_corners=False; the other one by hand
    large = np.maximum(cv2.resize(scores, (48, 32), interpolation=cv2.INTER_LINEAR), 0)
    y, x = (np.arange(n) * (m - 1) / (n - 1) for n, m in ((50, 32), (70, 48)))
    y0, x0 = np.minimum(y.astype(int), 30), np.minimum(x.astype(int), 46)
    fy, fx = (y - y0)[:, None], x - x0
    rows = large[y0] * (1 - fy) + large[y0 + 1] * fy
    expected = rows[:, x0] * (1 - fx) + rows[:, x0 + 1] * fx
    expected /= expected.max() + 1e-5
    found = resize_response(torch.from_numpy(scores)[None], (32, 48), (50, 70))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_map_without_a_positive_score_is_empty(tmp_path):
    scores = -np.ones((3, 3), np.float32)
    maps = [ResponseMap(7, -1, scores, (9, 9)), ResponseMap(8, -1, 0 * scores, (9, 9))]
    write_response_maps(tmp_path / 'maps', maps, {})
    for ref_id in (7, 8):
        assert not ResponseMaps(tmp_path / 'maps').response(ref_id, (20, 30)).any()


def test_other_data_and_other_weights_are_refused(tmp_path, dataset, mini):
    maps = write(tmp_path / 'maps', dataset)
    weights = tmp_path / 'other.pth'
    weights.write_bytes(b'weights')
    maps.check(dataset)
    maps.check(dataset, dict(name='copy.pth', sha256='ab' * 32))
    with pytest.raises(ResponseMapError, match=r'stage1\.pth.*abab.*not of other\.pth'):
        maps.check(dataset, name_and_digest(weights))
    val = DATASETS.build(mini.config(split='val'))
    with pytest.raises(ResponseMapError, match="maps of 'mini', split 'train', not of .* 'val'"):
        maps.check(val)
    # a changed expression is another data set
    mini.refs[0]['sentences'][0]['sent'] = 'another box'
    changed = DATASETS.build(mini.write().config())
    with pytest.raises(ResponseMapError, match='files of the data set have changed'):
        maps.check(changed)
    with pytest.raises(ResponseMapError, match='no map of reference 99; it has 5 references'):
        maps.map_of(99)


def test_the_grouping_of_the_data_set_does_not_matter(tmp_path, dataset, mini):
    maps = write(tmp_path / 'maps', dataset)
    for group_by in ('image', 'expression'):
        maps.check(DATASETS.build(mini.config(group_by=group_by)))


def test_missing_and_damaged_files_say_what_to_do(tmp_path, dataset):
    with pytest.raises(FileNotFoundError, match='make_response_maps.py CONFIG CHECKPOINT`$'):
        len(ResponseMaps(tmp_path / 'maps'))
    write(tmp_path / 'maps', dataset)
    content = (tmp_path / 'maps').read_bytes()
    (tmp_path / 'maps').write_bytes(content[:-5])
    with pytest.raises(ResponseMapError, match='cut short'):
        len(ResponseMaps(tmp_path / 'maps'))
