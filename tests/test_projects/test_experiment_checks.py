"""Options that something reads, and splits that are there."""

import pickle
from pathlib import Path

import pytest
from experiment_checks import arguments, check_splits, merge_options
from mmengine.config import Config

from nemo_mmseg.utils.config import find_config

ROOT = Path(__file__).resolve().parents[2]
NEMO = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256'
MOSAIC = 'train_dataloader.dataset.pipeline.1'
HEADS = 'optim_wrapper.paramwise_cfg.custom_keys'


@pytest.fixture
def cfg() -> Config:
    return Config.fromfile(find_config(NEMO))


@pytest.mark.parametrize(
    'options',
    [
        {f'{MOSAIC}.tau': 0.8},  # in the config
        {f'{MOSAIC}.i2i_sim_thres': 0.9},  # an argument that the config leaves alone
        {f'{MOSAIC}.leak_guard.action': 'drop'},  # ... and what is inside of it
        {'train_dataloader.dataset.indices': 9},  # an argument of a base, by way of **kwargs
        {'default_hooks.checkpoint.anything': 1},  # CheckpointHook takes any
        {'model.backbone.type': 'TIMMBackbone', 'model.backbone.out_indices': (1, 2)},  # timm's
        {'compile': True, 'find_unused_parameters': True, 'sync_bn': 'torch'},  # cfg.get
        {'model_wrapper_cfg': dict(type='MMDistributedDataParallel')},
        {'experiment_name': 'a', 'auto_scale_lr.base_batch_size': 16},  # the runner's arguments
        {'train_dataloader.pin_memory': True, 'train_dataloader.prefetch_factor': 4},  # no type
        {'randomness.deterministic': True, 'env_cfg.resource_limit': 9},
        {'log_processor.window_size': 5, 'optim_wrapper.paramwise_cfg.norm_decay_mult': 0.0},
        {f'{HEADS}.neck.lr_mult': 0.1},
        {'optim_wrapper.accumulative_counts': 2},  # MMEngine's class
        {'optim_wrapper.constructor': 'DefaultOptimWrapperConstructor'},  # the builder's
        {'optim_wrapper.optimizer.type': 'SGD', 'optim_wrapper.optimizer.momentum': 0.9},
        {'optim_wrapper.optimizer._delete_': True, 'optim_wrapper.optimizer.type': 'SGD'},
        {'model.neck.type': 'SomebodysNeck', 'model.neck.width': 3},  # not known
        {HEADS: dict(neck=dict(lr_mult=0.1))},
        {'model.backbone.pretrained': None, 'load_from': 'a.pth'},
        {f'{MOSAIC}.bank': dict(keep=5), f'{MOSAIC}.bank.path': 'b'},
    ],
)
def test_options_that_something_reads(cfg, options):
    merge_options(cfg, options)
    for key, value in options.items():
        found = cfg
        for part in key.split('.'):
            if part != '_delete_':
                found = found[int(part)] if part.isdigit() else found[part]
        if isinstance(value, dict):
            assert all(found[name] == inside for name, inside in value.items())
        elif not key.endswith('_delete_'):
            assert found == value


@pytest.mark.parametrize(
    'options, message',
    [
        ({f'{MOSAIC}.ta': 0.8}, r"pipeline\.1 \(NeMoMosaic\) has no 'ta'; did you mean 'tau'"),
        ({f'{MOSAIC}.self': 1}, "has no 'self'"),
        ({'train_dataloader.dataset.pipeline.0.numb': 1}, "SampleExpressions.* 'num'"),
        ({'train_dataloader.dataset.pipeline.2.x': 1}, "has no 'x'"),
        ({'train_dataloader.dataset.pipeline.9.p': 1}, 'is a list of 3'),
        ({'train_dataloader.dataset.pipeline.tau': 1}, 'is a list of 3'),
        ({f'{MOSAIC}.tau.mode': 1}, r'tau is 0\.97, which holds no settings'),
        ({'train_dataloder.batch_size': 1}, "the config has no .* 'train_dataloader'"),
        ({'find_unused_parameter': True}, "did you mean 'find_unused_parameters'"),
        ({'cfg': 1}, "the config has no 'cfg'"),
        ({'optim_wrapper.optimizer.type': 'SGD', 'optim_wrapper.optimizer.beta': 1}, 'SGD. has no'),
        ({f'{MOSAIC}.bank.path': 'b', f'{MOSAIC}.bank': dict(keep=5)}, 'would undo it'),
    ],
)
def test_options_that_nothing_reads(cfg, options, message):
    with pytest.raises(ValueError, match=message):
        merge_options(cfg, options)


def test_options_stay_as_they_were(cfg):
    options = {f'{MOSAIC}.bank': dict(keep=5), f'{MOSAIC}.bank.path': 'b'}
    merge_options(cfg, options)
    assert options == {f'{MOSAIC}.bank': dict(keep=5), f'{MOSAIC}.bank.path': 'b'}


class Base:
    def __init__(self, a=1):
        pass


class Handing(Base):
    def __init__(self, b=1, **rest):
        super(Handing, self).__init__(**rest)  # noqa: UP008  (as MMSegmentation writes it)


class Using(Base):
    def __init__(self, b=1, **rest):
        super().__init__(a=len(str(b)))
        self.made = dict(**rest)


class Both(Base):
    def __init__(self, b=1, **rest):
        self.c = rest.pop('c', 1)
        super().__init__(**rest)


def test_keywords_count_as_the_bases_where_they_are_handed_on_alone():
    namespace = {'Base': Base}
    exec(
        'class NoSource(Base):\n    def __init__(self, **rest): super().__init__(**rest)', namespace
    )
    assert arguments(Handing) == {'a', 'b'} and arguments(Base) == {'a'}
    assert all(arguments(one) is None for one in (Using, Both, namespace['NoSource']))
    assert {'indices', 'split', 'ann_file'} <= arguments('RefCOCODataset')


def test_every_setting_of_the_shipped_configs_is_known_as_an_argument():
    """Were an argument overlooked that some config uses, options of it would be refused."""
    checked = set()

    def walk(value):
        if isinstance(value, dict):
            known = arguments(value['type']) if 'type' in value else None
            if known is not None:
                checked.add(value['type'])
                builders = {'type', 'paramwise_cfg', 'convert_to_iter_based'}
                assert value.keys() - builders <= known, value
        if isinstance(value, (dict, list, tuple)):
            for one in value.values() if isinstance(value, dict) else value:
                walk(one)

    files = [file for folder in ('cris', 'lavt', 'refshapes') for file in
             (ROOT / 'configs' / folder).glob('*.py')]  # fmt: skip
    assert len(files) > 50
    for file in files:
        walk(Config.fromfile(file).to_dict())
    assert {'NeMoMosaic', 'RefCOCODataset', 'CRISHead', 'AdamW', 'LoadReferentMask'} <= checked


def test_splits(cfg, tmp_path):
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    check_splits(cfg, ('val', 'test', 'testA'))  # no file yet: names that such data sets use
    with pytest.raises(ValueError, match="has no split 'vall'; it has: train, val, test, testA"):
        check_splits(cfg, ('val', 'vall'))
    file = tmp_path / cfg.test_dataloader.dataset.split_file
    file.parent.mkdir()
    refs = [dict(file_name=f'{split}.jpg', split=split) for split in ('train', 'odd')]
    file.write_bytes(pickle.dumps(refs))
    check_splits(cfg, ('odd', 'train'))
    with pytest.raises(ValueError, match="has no split 'val'; it has: train, odd"):
        check_splits(cfg, ('odd', 'val'))
    cfg.test_dataloader.dataset.type = 'SomebodysDataset'
    check_splits(cfg, ('anything',))
    del cfg.test_dataloader.dataset['split']
    with pytest.raises(ValueError, match='SomebodysDataset. has no split to choose'):
        check_splits(cfg, ('val',))
    cfg.test_dataloader = None
    with pytest.raises(ValueError, match='no split to choose'):
        check_splits(cfg, ('val',))
