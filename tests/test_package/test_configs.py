"""What mim and the runner expect of the shipped configs."""

import argparse
import copy
import re
from collections import Counter
from functools import cache
from pathlib import Path

import make_metafiles
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import WEIGHT_INITIALIZERS, init_default_scope
from mmseg.registry import DATASETS, HOOKS, METRICS, MODELS, TASK_UTILS, TRANSFORMS
from torch import nn

from nemo_mmseg.utils.config import leaf_datasets

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py'))
# Pipelines name configs: test_tools/test_train_tris.py reads them.
NETWORKS = [path for path in CONFIGS if not {'_base_', 'pipelines'} & {*path.parts}]
# TRIS's affinity network segments no expression: test_models/test_affinity.py trains it.
AFFINITY = [path for path in NETWORKS if path.name.startswith('tris-irn')]
RUNNABLE = [path for path in NETWORKS if path not in AFFINITY]
# Of networks that train; the others are used as they were published.
TRAINED = [path for path in RUNNABLE if path.parent.name != 'zero_shot']


@cache
def _read(path: str) -> Config:
    return Config.fromfile(path)


made_files = cache(make_metafiles.render)


def read(path) -> Config:
    """A config that the caller may change; the file is read once."""
    return copy.deepcopy(_read(str(path)))


def train_parts(cfg: Config | dict) -> list[dict]:
    """The data sets that a config trains on: several where it joins some."""
    return list(leaf_datasets(cfg['train_dataloader']['dataset']))


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
    cfg = read(path)
    assert cfg.default_scope == 'mmseg'
    assert 'nemo_mmseg' in cfg.custom_imports['imports']
    assert not cfg.custom_imports['allow_failed_imports']
    assert isinstance(cfg.randomness['seed'], int), 'base configs fix the seed'
    for loop in ('train', 'val', 'test'):
        assert f'{loop}_dataloader' in cfg and f'{loop}_cfg' in cfg


@pytest.mark.parametrize('path', RUNNABLE[::9], ids=short)
def test_what_a_work_dir_gets_is_a_config_again(path):
    cfg = read(path)
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
    cfg = read(path)
    expected = {
        'model': (MODELS, TASK_UTILS, WEIGHT_INITIALIZERS),
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
            value = value.get(part) or {}
        for name in types(value):
            if all(registry.get(name) is None for registry in registries):
                unknown.append(f'{key}: {name}')
    assert unknown == []


@pytest.mark.parametrize('path', RUNNABLE, ids=short)
def test_the_best_checkpoint_is_told_by_a_value_of_the_metric(path):
    init_default_scope('mmseg')
    cfg = read(path)
    values = METRICS.build(cfg.val_evaluator).compute_metrics([])
    assert cfg.default_hooks.checkpoint.get('save_best', 'oIoU') in values


def test_metafiles_and_the_model_zoo_are_up_to_date():
    stale = [short(path) for path, text in made_files().items() if path.read_text() != text]
    assert not stale, 'run `make metafiles`'


def test_every_config_is_in_a_metafile():
    listed = re.findall(r'^  Config: (.*)$', '\n'.join(made_files().values()), re.MULTILINE)
    assert Counter(listed) == Counter(map(short, NETWORKS))
    # mim lower-cases what it searches for
    assert [name for name in listed if name != name.lower()] == []


@pytest.mark.parametrize('path', [p for p in RUNNABLE if p not in TRAINED], ids=short)
def test_untrained_networks_have_nothing_to_train_with(path):
    cfg = read(path)
    assert cfg.train_dataloader is cfg.train_cfg is cfg.optim_wrapper is None
    assert MODELS.get(cfg.model.type).training_free
    height, width = re.search(r'_[a-z]+(?:-[a-z]+)?-(\d+)x(\d+)$', path.stem).groups()
    assert tuple(cfg.image_size) == (int(height), int(width))
    (resize,) = [one for one in cfg.test_dataloader.dataset.pipeline if one.type == 'Resize']
    assert tuple(resize.scale) == (int(width), int(height)) and not resize.keep_ratio


@pytest.mark.parametrize('path', [*TRAINED, *AFFINITY], ids=short)
def test_the_name_says_what_the_config_does(path):
    name = re.fullmatch(
        r'.*?_?(nemo|mosaic|cutmix|mixgen|copypaste)?(?:[_-]maskris)?_(\d+)xb(\d+)-(\d+)(e|i)_(.*)-(\d+)x(\d+)(_\w+)?',
        path.stem,
    )
    augmentation, gpus, batch, length, unit, _, height, width, _ = name.groups()
    cfg = read(path)
    assert cfg.train_dataloader.batch_size == int(batch)
    if cfg.get('auto_scale_lr'):
        assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch)
    assert cfg.train_cfg['max_epochs' if unit == 'e' else 'max_iters'] == int(length)
    assert tuple(cfg.image_size) == (int(height), int(width))
    for part in train_parts(cfg):
        kinds = set(AUGMENTATIONS.values()) & {one.type for one in part.pipeline}
        assert kinds == ({AUGMENTATIONS[augmentation]} if augmentation else set())
    assert ('masked' in cfg.model.get('train_cfg', {})) == ('maskris_' in path.stem)


@pytest.mark.parametrize('path', AFFINITY, ids=short)
def test_affinity_networks_learn_labels_that_lie_beside_the_masks(path):
    cfg = read(path)
    data = re.search(r'\d[ei](_.*)-\d+x\d+$', path.stem)[1]
    other = next(path.parent.glob(f'tris-stage2_*{data}-[0-9]*'))
    stage2 = read(other).train_dataloader.dataset
    masks = Path(stage2.data_root, stage2.ann_file)
    images = Path(stage2.data_root, stage2.data_prefix.img_path)
    (hook,) = cfg.custom_hooks
    for dataset in (cfg.train_dataloader.dataset, hook.dataloader.dataset):
        root = dataset.get('data_root', '')
        assert Path(root, dataset.ann_file) == masks.parent / 'confidence_labels.json'
        assert Path(root, dataset.data_prefix.img_path) == images
    published = '-published_' in path.name
    assert hook.get('count_padding', False) == hook.dataloader.get('drop_last', False) == published


AUGMENTATIONS = dict(
    nemo='NeMoMosaic',
    mosaic='NeMoMosaic',
    cutmix='CutMix',
    mixgen='MixGen',
    copypaste='CopyPaste',
)
WITH_NEMO = [path for path in RUNNABLE if '_nemo_' in path.name]
AUGMENTED = [(p, name) for p in RUNNABLE for name in AUGMENTATIONS if f'_{name}_' in p.name]


@pytest.mark.parametrize('path, name', AUGMENTED, ids=lambda value: Path(value).name)
def test_an_augmentation_changes_nothing_but_the_training_samples(path, name):
    cfg, baseline = (read(one).to_dict() for one in (path, str(path).replace(f'_{name}_', '_')))
    for mixed, plain in zip(train_parts(cfg), train_parts(baseline), strict=True):
        mixing = mixed.pop('pipeline')[1]
        sample, *load, pack = plain.pop('pipeline')
        assert mixing['transforms'] == load, 'samples that are not mixed are those of the baseline'
        assert tuple(mixing.get('size', baseline['image_size'])) == tuple(baseline['image_size'])
    for key in set(baseline) - {'bank', name, 'custom_hooks'}:
        assert cfg[key] == baseline[key], key


WITH_MASKS = [path for path in TRAINED if re.search('[_-]maskris_', path.name)]


@pytest.mark.parametrize('path', WITH_MASKS, ids=short)
def test_maskris_changes_nothing_but_the_passes(path):
    name = path.name.replace('nemo-maskris_', 'nemo_').replace('_maskris_', '_')
    (source,) = [one for one in RUNNABLE if one.name == name]
    cfg, baseline = read(path).to_dict(), read(source).to_dict()
    published = dict(patch_size=32, image_ratio=0.75, text_ratio=0.15, text_shares=(0.8, 0.1))
    expected = dict(published, clean_weight=0.5, passes=2)
    assert cfg.pop('masked') == cfg['model'].pop('train_cfg').pop('masked') == expected
    assert not baseline['model'].pop('train_cfg', None)
    assert cfg == baseline
    assert all(side % 32 == 0 for side in cfg['image_size']), 'patches are whole, as published'


NEGATIVE = [path for path in RUNNABLE if 'negexp_' in path.name]


@pytest.mark.parametrize('path', NEGATIVE, ids=short)
def test_negative_expressions_change_nothing_but_the_expressions(path):
    cfg, baseline = (read(p).to_dict() for p in (path, re.sub('(mined)?negexp_', '', str(path))))
    pipeline = cfg['train_dataloader']['dataset'].pop('pipeline')
    replace = pipeline.pop(1)
    assert pipeline == baseline['train_dataloader']['dataset'].pop('pipeline')
    assert replace['type'] == 'ReplaceByNegativeExpression' and replace['prob'] == 0.15
    mined = '_minednegexp_' in path.name
    assert ('bank' in replace) == ('band' in replace) == ('custom_hooks' in cfg) == mined
    TRANSFORMS.build(replace)
    for key in set(baseline) - {'custom_hooks'}:
        assert cfg[key] == baseline[key], key


@pytest.mark.parametrize('folder', ['cris', 'refshapes'])
def test_baselines_of_nemo_differ_in_the_augmentation_alone(folder):
    baselines = {
        name: path
        for path, name in AUGMENTED
        if name not in ('nemo',) and path.parent.name == folder
    }
    assert set(baselines) == set(AUGMENTATIONS) - {'nemo'}
    chances = set()
    for name, path in baselines.items():
        nemo = read(str(path).replace(f'_{name}_', '_nemo_'))
        cfg = read(path)
        chances.add(cfg[name].schedule.random if name == 'mosaic' else cfg[name].prob)
        chances.add(nemo.nemo.schedule.mined)
        assert (
            cfg.train_dataloader.dataset.pipeline[::2]
            == nemo.train_dataloader.dataset.pipeline[::2]
        )
    assert len(chances) == 1, 'all augment equally often'


def test_a_bank_holds_one_set_of_expressions():
    # the fingerprint of a bank knows the texts: one file for two data sets is refused
    seen = {}
    for path in WITH_NEMO:
        for data in train_parts(read(path)):
            (mosaic,) = [one for one in data.pipeline if one.type == 'NeMoMosaic']
            files = data.get('split_file'), data.ann_file, data.get('leak_guard')
            texts = *files, data.get('text_key', 'sent'), data.split
            assert seen.setdefault(mosaic.bank.path, texts) == texts, short(path)


def documented_options() -> dict[str, str]:
    """The settings of the table in docs/training.md by their keys, as strings."""
    text = (ROOT / 'docs' / 'training.md').read_text()
    rows = text[: text.index('\n## ')].split('\n')
    cells = [row.split('|')[2] for row in rows if row.startswith('|')][2:]
    return dict(cell.strip(' `').split('=', 1) for cell in cells)


@pytest.mark.parametrize('name', ['lavt/lavt_swin-tiny-w7_nemo_4xb8', 'cris/cris_r50_nemo_8xb8'])
def test_documented_options_fit_any_config(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'AVX512')
    init_default_scope('mmseg')
    path = next(path for path in RUNNABLE if name in str(path))
    options = documented_options()
    assert len(options) == 7
    if 'cris' in name:
        del options['model.backbone.with_cp']  # a Swin's
    cfg = read(path)
    baseline = read(path).to_dict()
    # as tools/train.py reads them
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    words = [f'{key}={value}' for key, value in options.items()]
    cfg.merge_from_dict(parser.parse_args(['--cfg-options', *words]).cfg_options)
    for hook in cfg.default_hooks.values():
        assert HOOKS.get(hook.type), hook
    for part in ('compile', 'channels_last'):
        HOOKS.build(cfg.default_hooks[part])
    # nothing of the recipe is lost on the way
    assert cfg.optim_wrapper.paramwise_cfg == baseline['optim_wrapper']['paramwise_cfg']
    assert cfg.custom_hooks == baseline['custom_hooks']
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper).__name__ == 'BFloat16OptimWrapper'
    assert wrapper._accumulative_counts == 4 and wrapper.optimizer.defaults['fused'] is True
    with wrapper.optim_context(model):
        assert model.backbone(torch.ones(1, 2)).dtype == torch.bfloat16
    if 'lavt' in name:
        backbone = dict(cfg.model.backbone, embed_dims=8, depths=(1,) * 4, pretrained=None)
        assert MODELS.build(dict(backbone, num_heads=(1,) * 4)).with_cp is True


def test_half_precision_has_a_hook_for_cpus_without_it():
    """Every config that evaluates under ``fp16`` can also be evaluated on an old CPU."""
    found = 0
    for path in RUNNABLE:
        cfg = read(path)
        if any((cfg.get(key) or {}).get('fp16') for key in ('val_cfg', 'test_cfg')):
            found += 1
            assert 'CPUPrecisionHook' in [hook.type for hook in cfg.default_hooks.values()], path
    assert found


def test_options_are_off_by_default():
    for path in TRAINED:
        if path.parent.name == 'refshapes':  # for CPUs
            continue
        cfg = read(path)
        assert not any('Compile' in hook.type for hook in cfg.default_hooks.values())
        assert cfg.optim_wrapper.get('accumulative_counts', 1) == 1
        assert not cfg.model.backbone.get('with_cp') and not cfg.get('find_unused_parameters')
        assert 'bfloat16' not in repr(cfg).lower()
