"""Configs are found by path and by name."""

from pathlib import Path

import pytest
from mmengine.config import Config

from nemo_mmseg.utils.config import find_config, leaf_datasets

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize('suffix', ['', '.py'])
def test_by_name(suffix: str):
    name = 'cris_r50_8xb8-50e_refcoco-416x416'
    path = find_config(name + suffix)
    assert Path(path).stem == name
    assert Config.fromfile(path).model.type == 'ReferringSegmentor'


def test_names_are_unique():
    names = [path.stem for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts]
    assert len(names) == len(set(names))


def test_a_path_comes_first(tmp_path: Path):
    path = tmp_path / 'mine.py'
    path.write_text('a = 1')
    assert find_config(str(path)) == str(path)


def test_unknown_names_get_their_neighbours():
    with pytest.raises(FileNotFoundError, match='near it: .*cris_r50_8xb8-50e_refcoco-416x416'):
        find_config('cris_r50_8xb8_refcoco-416')
    with pytest.raises(FileNotFoundError, match='neither a config file nor a name'):
        find_config('no/such/folder/cris_r50_8xb8-50e_refcoco-416x416')


def test_leaves_of_nested_wrappers():
    leaf = dict(type='A')
    nested = dict(type='X', dataset=dict(type='ConcatDataset', datasets=[leaf, dict(dataset=leaf)]))
    assert list(leaf_datasets(nested)) == [leaf, leaf]
