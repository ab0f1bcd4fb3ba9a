"""What mim and the runner expect of the shipped configs."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmseg.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py'))
RUNNABLE = [path for path in CONFIGS if '_base_' not in path.parts]


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_configs():
    assert RUNNABLE


def test_names_are_unique_for_mim():
    # mim looks a config up by its file name in the whole installed package
    package = [path.name for path in (ROOT / 'nemo_mmseg').rglob('*.py')]
    shipped = [path.name for path in CONFIGS] + [p.name for p in (ROOT / 'tools').rglob('*.py')]
    counts = Counter(package + shipped)
    assert [short(path) for path in RUNNABLE if counts[path.name] > 1] == []


@pytest.mark.parametrize('path', RUNNABLE, ids=short)
def test_config_can_be_run(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmseg'
    assert 'nemo_mmseg' in cfg.custom_imports['imports']
    assert not cfg.custom_imports['allow_failed_imports']
    assert isinstance(cfg.randomness['seed'], int), 'base configs fix the seed'
    for loop in ('train', 'val', 'test'):
        assert f'{loop}_dataloader' in cfg and f'{loop}_cfg' in cfg
    # what a work dir gets is a config again
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()


def types(value) -> set[str]:
    """All `type=` names in a config value."""
    if isinstance(value, dict):
        own = {value['type']} if isinstance(value.get('type'), str) else set()
        return own.union(*(types(item) for item in value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*(types(item) for item in value))
    return set()


@pytest.mark.parametrize('path', RUNNABLE, ids=short)
def test_config_names_registered_classes(path):
    cfg = Config.fromfile(path)
    expected = {
        'model': (MODELS,),
        'train_dataloader.dataset': (DATASETS, TRANSFORMS),
        'val_dataloader.dataset': (DATASETS, TRANSFORMS),
        'test_dataloader.dataset': (DATASETS, TRANSFORMS),
        'val_evaluator': (METRICS,),
        'test_evaluator': (METRICS,),
        'default_hooks': (HOOKS,),
        'custom_hooks': (HOOKS,),
    }
    unknown = []
    for key, registries in expected.items():
        value = cfg.to_dict()
        for part in key.split('.'):
            value = value[0] if isinstance(value, list) else value
            value = value.get(part, {})
        for name in types(value):
            if all(registry.get(name) is None for registry in registries):
                unknown.append(f'{key}: {name}')
    assert unknown == []


def test_model_index_names_existing_configs():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    for name in index['Import']:
        metafile = yaml.safe_load((ROOT / name).read_text())
        collections = {entry['Name'] for entry in metafile['Collections']}
        for model in metafile['Models']:
            # mim lower-cases what it searches for
            assert model['Name'] == Path(model['Config']).stem == model['Name'].lower()
            assert (ROOT / model['Config']).is_file()
            assert model['In Collection'] in collections


def test_every_config_is_in_a_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    files = [yaml.safe_load((ROOT / name).read_text()) for name in index['Import']]
    listed = Counter(model['Config'] for metafile in files for model in metafile['Models'])
    assert listed == Counter(map(short, RUNNABLE))


def test_every_method_has_a_metafile():
    listed = set(yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import'])
    for folder in {path.parent for path in RUNNABLE}:
        assert f'{folder.relative_to(ROOT)}/metafile.yml' in listed


@pytest.mark.parametrize('path', RUNNABLE, ids=short)
def test_the_name_says_what_the_config_does(path):
    name = re.fullmatch(r'.*?(_nemo)?_(\d+)xb(\d+)-(\d+)(e|i)_(.*)-(\d+)x(\d+)(_\w+)?', path.stem)
    nemo, gpus, batch, length, unit, _, height, width, _ = name.groups()
    cfg = Config.fromfile(path)
    assert cfg.train_dataloader.batch_size == int(batch)
    if cfg.get('auto_scale_lr'):
        assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch)
    assert cfg.train_cfg['max_epochs' if unit == 'e' else 'max_iters'] == int(length)
    assert tuple(cfg.image_size) == (int(height), int(width))
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert ('NeMoMosaic' in {one.type for one in pipeline}) == bool(nemo)


WITH_NEMO = [path for path in RUNNABLE if '_nemo_' in path.name]


@pytest.mark.parametrize('path', WITH_NEMO, ids=short)
def test_nemo_changes_nothing_but_the_training_samples(path):
    cfg, plain = (
        Config.fromfile(one).to_dict() for one in (path, str(path).replace('_nemo_', '_'))
    )
    mosaic = cfg['train_dataloader']['dataset'].pop('pipeline')[1]
    sample, *load, pack = plain['train_dataloader']['dataset'].pop('pipeline')
    assert mosaic['plain'] == load, 'a plain sample is what it is without NeMo'
    assert tuple(mosaic['size']) == tuple(plain['image_size'])
    for key in set(plain) - {'bank', 'nemo', 'custom_hooks'}:
        assert cfg[key] == plain[key], key


def test_a_bank_holds_one_set_of_expressions():
    # the fingerprint of a bank knows the texts: one file for two data sets is refused
    seen = {}
    for path in WITH_NEMO:
        cfg = Config.fromfile(path)
        data = cfg.train_dataloader.dataset
        texts = data.split_file, data.ann_file, data.get('text_key', 'sent'), data.split
        assert seen.setdefault(cfg.nemo.bank.path, texts) == texts, short(path)
