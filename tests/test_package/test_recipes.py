"""The recipes of the configs are the published ones: who learns how fast, and what is compared."""

import re

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.optim import build_optim_wrapper
from mmseg.registry import METRICS, MODELS, TASK_UTILS, TRANSFORMS
from PIL import Image
from recipe_helpers import (
    CONFIGS,
    LAVT,
    by_pil,
    item,
    lavt_without_decay,
    learned,
    load,
    picture,
    rates,
)

from nemo_mmseg.models.structures import HeadOutput


def test_the_count_by_hand_is_the_published_one():
    assert lavt_without_decay(*LAVT['base-w12']) == 258_296


def lavt_groups(size, bert):
    changes = {'model.text_encoder.config': bert, 'model.backbone.pretrained': None}
    cfg = load('lavt', f'lavt_swin-{size}_4xb8-40e_refcoco-480x480', changes)
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    assert {group['betas'] for group in optimizer.param_groups} == {(0.9, 0.999)}
    assert not any(group['amsgrad'] for group in optimizer.param_groups)
    return model, learned(optimizer)


def count(module, groups, decay):
    return sum(p.numel() for p in module.parameters() if groups.get(id(p)) == (5e-5, decay))


def check_lavt(size, model, groups, total):
    """Compare with the published rule, and with published counts.

    Args:
        size: Key of LAVT.
        model: The network.
        groups: Of `learned`.
        total: Weights of the published backbone and decoder, with the dead gate of the last stage.
    """
    words = ('norm', 'absolute_pos_embed', 'relative_position_bias_table')
    for name, parameter in model.named_parameters():
        if name.startswith('text_encoder.'):
            layer = re.match(r'text_encoder\.bert\.encoder\.layer\.(\d+)\.', name)
            expected = (5e-5, 0.01) if layer and int(layer[1]) < 10 else None
        elif name.startswith('backbone.') and any(word in name for word in words):
            expected = (5e-5, 0.0)
        else:
            expected = (5e-5, 0.01)
        assert groups.get(id(parameter)) == expected, name
    dead_gate = 2 * (8 * LAVT[size][0]) ** 2
    without = count(model.backbone, groups, 0.0)
    assert without == lavt_without_decay(*LAVT[size])
    parts = [count(part, groups, 0.01) for part in (model.backbone, model.decode_head)]
    assert without + sum(parts) == total - dead_gate
    return parts


def test_groups_of_lavt():
    thin_bert = dict(vocab_size=11, hidden_size=768, intermediate_size=8)
    model, groups = lavt_groups('tiny-w7', thin_bert)
    check_lavt('tiny-w7', model, groups, 46_058_876)


@pytest.mark.slow
def test_groups_of_lavt_as_published():
    model, groups = lavt_groups('base-w12', {})
    backbone, decoder = check_lavt('base-w12', model, groups, 118_847_866)
    assert backbone == 97_938_560 - 2 * 1024 * 1024
    assert decoder == 20_651_010
    assert count(model.text_encoder, groups, 0.01) == 70_878_720
    assert sum(p.numel() for p in model.text_encoder.parameters()) == 108_891_648


@pytest.mark.parametrize(
    'name',
    ['lavt_swin-base-w12_4xb8-40e_refcoco-480x480', 'vpd_sd15_8xb4-40e_refcoco-512x512'],
)
def test_rate_of_lavt_and_vpd_falls_with_every_iteration(name):
    cfg = load(name.split('_')[0], name)
    assert cfg.train_cfg.max_epochs == 40
    # MMEngine's PolyLR arrives at 0 in the last iteration, the published one after it.
    last = 40 * 7 - 1
    expected = 5e-5 * (1 - np.arange(last + 1) / last) ** 0.9
    found = rates(cfg, 40, 7)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found[:, 1], expected / 10, rtol=1e-6, atol=1e-12)


def test_rate_of_cris_falls_once():
    cfg = load('cris', 'cris_r50_8xb8-50e_refcoco-416x416')
    assert cfg.train_cfg.max_epochs == 50
    expected = np.repeat(np.where(np.arange(50) < 35, 1e-4, 1e-5), 3)
    np.testing.assert_allclose(rates(cfg, 50, 3)[:, 0], expected)


def test_groups_of_cris():
    changes = {'model.text_encoder.pretrained': None, 'model.backbone.pretrained': None}
    cfg = load('cris', 'cris_r50_8xb8-50e_refcoco-416x416', changes)
    model = MODELS.build(cfg.model)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # without a GPU, no AMP
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    assert type(optimizer) is torch.optim.Adam
    groups = learned(optimizer)
    tables = []
    for name, parameter in model.named_parameters():
        # published: all of CLIP, image and text, but for what is called a position embedding
        encoder = name.startswith(('backbone.', 'text_encoder.'))
        table = encoder and 'positional_embedding' in name
        tables += [name] if table else []
        slow = encoder and not table
        assert groups[id(parameter)] == (pytest.approx(1e-5 if slow else 1e-4), 0.0), name
    assert len(tables) == 2 and {name.split('.')[0] for name in tables} == {
        'backbone',
        'text_encoder',
    }


@pytest.mark.parametrize('stage', [1, 2])
def test_groups_of_tris(stage):
    changes = {'model.text_encoder.pretrained': None, 'model.backbone.pretrained': None}
    cfg = load('tris', f'tris-stage{stage}_r50_1xb48-15e_refcoco-320x320', changes)
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    groups = learned(optimizer)
    for name, parameter in model.named_parameters():
        slow = name.startswith(('backbone.', 'text_encoder.'))
        if stage == 2 and 'positional_embedding' in name:
            slow = False  # published among the parameters of the head
        assert groups[id(parameter)] == (pytest.approx(5e-6 if slow else 5e-5), 0.01), name
    assert len(groups) == len(list(model.parameters()))
    if stage == 1:
        (aux,) = model.aux_losses
        weights = model.decode_head.loss_weight, aux.positive_weight, aux.negative_weight
        assert weights == (5.0, 1.0, 2.0)
        pipeline = cfg.train_dataloader.dataset.pipeline
        assert [one.num for one in pipeline if 'Negative' in one.type] == [3]
        assert not any('Mask' in one.type for one in pipeline), 'it learns from text alone'


@pytest.mark.parametrize('stage', ['1', '2', '1-published', '2-published'])
def test_rates_of_tris(stage):
    cfg = load('tris', f'tris-stage{stage}_r50_1xb48-15e_refcoco-320x320')
    assert cfg.train_cfg.max_epochs == 15 and cfg.train_dataloader.batch_size == 48
    found = rates(cfg, 15, 7)[:, 0]
    last = 15 * 7 - 1
    expected = 5e-5 * (1 - np.arange(last + 1) / last) ** 0.9
    if stage == '2-published':
        # stepped once an epoch, with the number of all steps below the line
        steps = 15 * 884
        expected = 5e-5 * (1 - np.repeat(np.arange(15), 7) / steps) ** 0.9
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def leaves(value, name=''):
    """Each setting of a config by its dotted name; a schedule is one setting."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in leaves(value[key], f'{name}.{key}').items()}
    if isinstance(value, list) and name != '.param_scheduler':
        return {k: v for i, one in enumerate(value) for k, v in leaves(one, f'{name}.{i}').items()}
    return {name.removeprefix('.'): value}


PUBLISHED = {
    'tris-stage1': {
        'model.text_encoder.keep_end': False,
        'model.aux_losses.0.max_tokens': 20,
        'response_maps.selection.max_tokens': 20,
    },
    'tris-stage2': {
        'model.text_encoder.keep_end': False,
        'model.test_cfg.protocol.flip_negative': True,
        'param_scheduler': [],
    },
    'tris-irn': {
        'optim_wrapper.optimizer.lr': 0.1,
        'optim_wrapper.optimizer.momentum': 1e-4,
        'custom_hooks.0.count_padding': True,
        'custom_hooks.0.dataloader.drop_last': True,
    },
}


TRIS = sorted((CONFIGS / 'tris').glob('*-published_*.py'))


@pytest.mark.parametrize('path', TRIS, ids=lambda path: path.stem)
def test_what_is_published_of_tris_differs_in_what_is_mended(path):
    network, rest = path.stem.split('-published')
    published, mended = (
        leaves(load('tris', name).to_dict()) for name in (path.stem, network + rest)
    )
    names = published.keys() | mended.keys()
    differing = {n: published[n] for n in names if published.get(n) != mended.get(n)}
    assert differing == PUBLISHED[network]


# What reads and compares stretched squares: a config, the side, and the expressions it reads.
STRETCHED = pytest.mark.parametrize(
    'name, side, text_key, empty_union',
    [
        ('lavt_swin-tiny-w7_4xb8-40e_refcoco-480x480', 480, 'raw', 0.0),
        ('caris_swin-tiny-w7_2xb8-50e_refcoco-448x448', 448, 'sent', 1.0),
        ('vpd_sd15_8xb4-40e_refcoco-512x512', 512, 'sent', 0.0),
    ],
)


@STRETCHED
def test_images_and_masks_of_training_are_what_pil_makes(
    name, side, text_key, empty_union, tmp_path
):
    image, masks = picture(tmp_path / 'it.png')
    cfg = load(name.split('_')[0], name)
    assert cfg.train_dataloader.dataset.get('text_key', 'sent') == text_key
    sample, *rest = cfg.train_pipeline
    assert sample.type == 'SampleExpressions' and cfg.train_dataloader.dataset.pipeline[1:] == rest
    packed = Compose([TRANSFORMS.build(one) for one in rest])(item(tmp_path / 'it.png', masks[:1]))
    expected = by_pil(image, Image.BILINEAR, side).transpose(2, 0, 1)
    np.testing.assert_array_equal(packed['inputs'].numpy(), expected)
    gt = packed['data_samples'].gt_sem_seg.data.numpy()
    np.testing.assert_array_equal(gt[0], by_pil(masks[0], Image.NEAREST, side))
    # and not on what OpenCV makes of the image
    by_cv2 = cv2.resize(image, (side, side)).transpose(2, 0, 1)
    assert np.abs(by_cv2 - expected.astype(int)).max() > 2


@STRETCHED
def test_masks_are_compared_as_squares(name, side, text_key, empty_union, tmp_path):
    _, masks = picture(tmp_path / 'it.png')
    cfg = load(name.split('_')[0], name)
    pipeline = Compose([TRANSFORMS.build(one) for one in cfg.test_dataloader.dataset.pipeline])
    packed = pipeline(item(tmp_path / 'it.png', masks))
    assert packed['inputs'].shape == (3, side, side)
    sample = packed['data_samples']
    assert sample.gt_sem_seg.data.shape == masks.shape
    # a network that says what PIL makes of the masks, but nothing at all about the third
    wanted = np.stack([by_pil(mask, Image.NEAREST, side) for mask in masks])
    said = torch.from_numpy(wanted).float()
    said[2] = 0
    protocol = TASK_UTILS.build(cfg.model.test_cfg.protocol)
    output = HeadOutput(torch.stack([1 - said, said], 1))
    protocol(output, packed['inputs'], sample)
    np.testing.assert_array_equal(sample.gt_sem_seg.data.numpy(), wanted)
    metric = METRICS.build(cfg.test_evaluator)
    metric.process(None, [sample.to_dict()])
    scores = metric.evaluate(1)
    area = wanted.reshape(3, -1).sum(1)
    assert scores['oIoU'] == pytest.approx(100 * area[:2].sum() / area.sum())
    assert scores['mIoU'] == scores['Pr@0.5'] == pytest.approx(200 / 3)
    assert metric.tie == '>=' and metric.empty_union == empty_union
