"""The recipe of CGFormer is the published one: who learns how fast, and what is compared."""

import gzip
import json
import re

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmseg.registry import METRICS, MODELS
from recipe_helpers import CONFIGS, learned, load, rates


def cgformer_counts():
    """Parameters by group of the published optimizer, by the published names; and dead ones."""
    file = CONFIGS.parent / 'tests' / 'data' / 'parity' / 'cgformer' / 'names.json.gz'
    names = json.loads(gzip.decompress(file.read_bytes()))['model_state_dict']
    counts = dict(fast=0, backbone=0, bert=0, dead=0)
    for name, (shape, dtype) in names.items():
        if 'running_' in name or not dtype.startswith('float'):
            continue  # no parameter
        if re.search(r'layers\.3\.pwam_gate|loadtoken\.(norm|mlp)\.', name):
            group = 'dead'
        elif name.startswith('decoder') or 'pwam' in name:
            group = 'fast'
        else:
            group = 'bert' if name.startswith('text_encoder') else 'backbone'
        counts[group] += np.prod(shape, dtype=int)
    return counts


def cgformer_groups(folder, name, changes):
    cfg = load(folder, name, {'model.backbone.pretrained': None, **changes})
    model = MODELS.build(cfg.model)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # without a GPU, no AMP
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    assert all(g['amsgrad'] and g['betas'] == (0.9, 0.999) for g in optimizer.param_groups)
    groups = learned(optimizer)
    counts = dict(fast=0, backbone=0, bert=0)
    for name, parameter in model.named_parameters():
        if re.match(r'decode_head\.|backbone\.(fusions|gates)\.', name):
            group, rate = 'fast', 1e-4
        else:
            group, rate = 'bert' if name.startswith('text_encoder') else 'backbone', 5e-5
        assert groups[id(parameter)] == (pytest.approx(rate), 1e-4), name
        counts[group] += parameter.numel()
    return counts


@pytest.mark.slow
def test_groups_of_cgformer_as_published():
    published = cgformer_counts()
    assert published.pop('dead') == 2 * 1024**2 + 2 * (2 * 512 * 1024 + 1024 + 512 + 2 * 512)
    assert published['bert'] == 108_891_648
    # LAVT's published backbone, gates and fusions apart
    gates = 2 * sum((128 * 2**i) ** 2 for i in range(4))
    fusions = sum(4 * c * c + 2 * 768 * c + 6 * c for c in (128, 256, 512, 1024))
    assert published['backbone'] == 118_847_866 - 20_651_010 - gates - fusions
    ours = cgformer_groups('cgformer', 'cgformer_swin-base-w12_8xb8-50e_refcoco-480x480', {})
    assert ours == published


def test_cgformer_reads_and_compares_as_published():
    lavt = load('lavt', 'lavt_swin-base-w12_4xb8-40e_refcoco-480x480')
    for path in sorted((CONFIGS / 'cgformer').glob('*.py')):
        cfg = load('cgformer', path.stem)
        assert cfg.model.decode_head.image_size == cfg.image_size == (480, 480), path
        assert cfg.train_dataloader.dataset.get('text_key', 'sent') == 'sent'
        assert cfg.load_transforms == lavt.load_transforms
        assert cfg.model.test_cfg.protocol == dict(type='CGFormerProtocol')
        metric = METRICS.build(cfg.test_evaluator)
        if 'grefcoco' not in path.name:
            assert (metric.tie, metric.empty_union) == ('>', 0.0)
        tests = [one.type for one in cfg.test_dataloader.dataset.pipeline]
        assert tests[:3] == ['LoadReferringImage', 'Resize', 'LoadReferentMask']
    for path in (CONFIGS / 'refshapes').glob('cgformer_*.py'):
        cfg = load('refshapes', path.stem)
        assert cfg.model.decode_head.image_size == cfg.image_size, path


def test_rate_of_cgformer_falls_with_every_iteration():
    cfg = load('cgformer', 'cgformer_swin-base-w12_8xb8-50e_refcoco-480x480')
    assert cfg.train_cfg.max_epochs == 50
    last = 50 * 3 - 1
    expected = 1e-4 * (1 - np.arange(last + 1) / last) ** 0.9
    np.testing.assert_allclose(rates(cfg, 50, 3)[:, 0], expected, rtol=1e-6, atol=1e-12)
