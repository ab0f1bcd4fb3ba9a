"""The recipes of the configs are the published ones: who learns how fast, and what is compared."""

import gzip
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmseg.registry import METRICS, MODELS, TASK_UTILS, TRANSFORMS
from PIL import Image

from nemo_mmseg.models.structures import HeadOutput

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LAVT = {
    'tiny-w7': (96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    'base-w12': (128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
}


def load(method, name, changes=None):
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIGS / method / f'{name}.py')
    cfg.merge_from_dict(changes or {})
    return cfg


def learned(optimizer):
    """(learning rate, decay) by the identity of each parameter."""
    found = {}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            assert id(parameter) not in found, 'a parameter learns twice'
            found[id(parameter)] = group['lr'], group['weight_decay']
    return found


def lavt_without_decay(embed, depths, heads, window):
    """Normalisations and bias tables of the published Swin, counted by hand."""
    total = 2 * embed  # of the patches
    for i, (depth, head) in enumerate(zip(depths, heads)):
        channels = embed * 2**i
        total += depth * (2 * 2 * channels + head * (2 * window - 1) ** 2)
        total += 2 * channels  # of the output
        total += 2 * 4 * channels if i < 3 else 0  # of the patch merging
    return total


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


def check_rela(size, bert, total):
    """Compare with the published rule, and with counts by hand.

    Args:
        size: Key of LAVT, whose backbone it is.
        bert: What differs from BERT-base.
        total: Published number of parameters without BERT.

    Returns:
        The network, and what its parameters learn by.
    """
    changes = {'model.text_encoder.config': bert, 'model.backbone.pretrained': None}
    cfg = load('rela', f'rela_swin-{size}_8xb6-150000i_grefcoco-480x480', changes)
    model = MODELS.build(cfg.model)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # without a GPU, no AMP
    wrapper = build_optim_wrapper(model, wrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW
    assert wrapper.clip_grad_kwargs == dict(max_norm=0.01)
    groups = learned(wrapper.optimizer)
    norms = (torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.Embedding)
    still = {
        id(parameter)
        for module in (model.backbone, model.neck, model.decode_head)
        for part in module.modules()
        if isinstance(part, norms)
        for parameter in part.parameters(recurse=False)
    }
    without = 0
    for name, parameter in model.named_parameters():
        if name.startswith('text_encoder.'):
            layer = re.match(r'text_encoder\.bert\.encoder\.layer\.(\d+)\.', name)
            expected = (1e-5, 0.05) if layer and int(layer[1]) < 10 else None
        elif id(parameter) in still or 'relative_position_bias_table' in name:
            expected = (1e-5, 0.0)
            without += parameter.numel()
        else:
            expected = (1e-5, 0.05)
        assert groups.get(id(parameter)) == expected, name
    # 3 projections, 2 norms of the pyramid, 6 and 9 layers, after the language and the last
    norms = 3 + 2 + 6 * 2 + 9 * 3 + 1 + 1
    assert without == lavt_without_decay(*LAVT[size]) + norms * 512 + (2 * 100 + 3) * 256
    assert groups[id(model.neck.level_embed)] == (1e-5, 0.05)
    parts = (model.backbone, model.neck, model.decode_head)
    assert sum(p.numel() for part in parts for p in part.parameters()) == total
    return model, groups


def test_groups_of_rela():
    thin_bert = dict(vocab_size=11, hidden_size=768, intermediate_size=8)
    check_rela('tiny-w7', thin_bert, 162_560_575 - 108_891_648)


@pytest.mark.slow
def test_groups_of_rela_as_published():
    model, groups = check_rela('base-w12', {}, 225_521_469 - 108_891_648)
    bert = [p for p in model.text_encoder.parameters() if id(p) in groups]
    assert sum(p.numel() for p in bert) == 70_878_720


def test_rate_of_rela_falls_twice():
    cfg = load('rela', 'rela_swin-base-w12_8xb6-150000i_grefcoco-480x480')
    (schedule,) = cfg.param_scheduler
    assert cfg.train_cfg.max_iters == 150000 and cfg.train_cfg.val_interval == 5000
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-5)
    milestones = [step // 10000 for step in schedule.milestones]
    scheduler = PARAM_SCHEDULERS.build(
        dict(schedule, milestones=milestones), default_args=dict(optimizer=optimizer)
    )
    found = []
    for _ in range(15):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(found, [1e-5] * 11 + [1e-6] * 3 + [1e-7])


CARIS_PARTS = ('text_encoder', 'backbone', 'rest')
# Published counts by part: weights without and with decay.
CARIS = {
    'tiny': dict(backbone=(49_434, 27_471_264), rest=(25_600, 30_394_304)),
    'base': dict(
        text_encoder=(23_874_048, 85_017_600),
        backbone=(122_936, 86_622_080),
        rest=(25_600, 30_910_400),
    ),
}


def check_caris(size, bert):
    """Compare with the published rule, in words of our names, and with published counts."""
    changes = {'model.text_encoder.config': bert, 'model.backbone.pretrained': None}
    cfg = load('caris', f'caris_swin-{size}-w7_2xb8-50e_refcoco-448x448', changes)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1.0)
    model = MODELS.build(cfg.model)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # without a GPU, no AMP
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    groups, counts = learned(optimizer), {part: [0, 0] for part in CARIS_PARTS}
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        part = name.split('.')[0]
        layer_norm = isinstance(modules[name.rpartition('.')[0]], torch.nn.LayerNorm)
        alone = any(word in name for word in ('.embeddings.', 'bias_table', '.prompts.learned'))
        still = layer_norm or alone or name == 'decode_head.prompts'
        part = part if part in CARIS_PARTS else 'rest'
        rate = 1e-4 if part == 'rest' else 1e-5
        assert groups[id(parameter)] == (pytest.approx(rate), 0.0 if still else 0.01), name
        counts[part][not still] += parameter.numel()
    for part, expected in CARIS[size].items():
        assert tuple(counts[part]) == expected, part


def test_groups_of_caris():
    check_caris('tiny', dict(vocab_size=11, hidden_size=768, intermediate_size=8))


@pytest.mark.slow
def test_groups_of_caris_as_published():
    check_caris('base', {})


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


def rates(cfg, epochs, epoch_length):
    """Learning rates of two groups in each iteration, as MMEngine's runner steps the schedule."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    lr = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([dict(params=[p], lr=s * lr) for p, s in zip(parameters, (1, 0.1))])
    schedulers = [
        PARAM_SCHEDULERS.build(dict(one), default_args=dict(optimizer=optimizer, **more))
        for one in cfg.param_scheduler
        for more in [dict(epoch_length=epoch_length) if one.get('convert_to_iter_based') else {}]
    ]
    found = []
    for _ in range(epochs):
        for _ in range(epoch_length):
            found.append([group['lr'] for group in optimizer.param_groups])
            optimizer.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return np.array(found)


def test_rate_of_lavt_falls_with_every_iteration():
    cfg = load('lavt', 'lavt_swin-base-w12_4xb8-40e_refcoco-480x480')
    assert cfg.train_cfg.max_epochs == 40
    # MMEngine's PolyLR arrives at 0 in the last iteration, the published one after it.
    last = 40 * 7 - 1
    expected = 5e-5 * (1 - np.arange(last + 1) / last) ** 0.9
    found = rates(cfg, 40, 7)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found[:, 1], expected / 10, rtol=1e-6, atol=1e-12)


def test_rate_of_caris_rises_and_falls():
    cfg = load('caris', 'caris_swin-base-w7_2xb8-50e_refcoco-448x448')
    assert cfg.train_cfg.max_epochs == 50
    i, last = np.arange(2000), 50 * 40 - 1
    # The published fall begins behind the warm-up, but counts from the first iteration.
    warm = np.minimum(1 - (1 - i / 1500) * 0.999, 1)
    found = rates(cfg, 50, 40)[:, 0]
    np.testing.assert_allclose(found, 1e-5 * warm * (1 - i / last) ** 0.9, rtol=1e-6, atol=1e-12)


def test_rate_of_cgformer_falls_with_every_iteration():
    cfg = load('cgformer', 'cgformer_swin-base-w12_8xb8-50e_refcoco-480x480')
    assert cfg.train_cfg.max_epochs == 50
    last = 50 * 3 - 1
    expected = 1e-4 * (1 - np.arange(last + 1) / last) ** 0.9
    np.testing.assert_allclose(rates(cfg, 50, 3)[:, 0], expected, rtol=1e-6, atol=1e-12)


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


def picture(path):
    """An image file and three rectangles on it, of a size that divides by nothing."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (333, 517, 3), dtype=np.uint8)
    cv2.imwrite(str(path), image)
    masks = np.zeros((3, 333, 517), np.uint8)
    for mask in masks:
        top, left = rng.integers(0, 200, 2)
        mask[top : top + rng.integers(20, 130), left : left + rng.integers(20, 300)] = 1
    return image, masks


def item(path, masks):
    from pycocotools import mask as coco_mask

    instances = [
        dict(ann_id=i, segmentation=coco_mask.encode(np.asfortranarray(mask)))
        for i, mask in enumerate(masks)
    ]
    return dict(
        img_path=str(path),
        img_id=1,
        height=masks.shape[1],
        width=masks.shape[2],
        instances=instances,
        targets=[[i] for i in range(len(masks))],
        expressions=['it'] * len(masks),
        seg_fields=[],
        reduce_zero_label=False,
    )


def by_pil(array, resample, side):
    return np.asarray(Image.fromarray(array).resize((side, side), resample))


STRETCHED = pytest.mark.parametrize(
    'method, name, side',
    [
        ('lavt', 'lavt_swin-tiny-w7_4xb8-40e_refcoco-480x480', 480),
        ('caris', 'caris_swin-tiny-w7_2xb8-50e_refcoco-448x448', 448),
    ],
)


@STRETCHED
def test_it_is_trained_on_what_pil_makes_of_image_and_mask(tmp_path, method, name, side):
    image, masks = picture(tmp_path / 'it.png')
    cfg = load(method, name)
    sample, *rest = cfg.train_pipeline
    assert sample.type == 'SampleExpressions' and cfg.train_dataloader.dataset.pipeline[1:] == rest
    packed = Compose([TRANSFORMS.build(one) for one in rest])(item(tmp_path / 'it.png', masks[:1]))
    expected = by_pil(image, Image.BILINEAR, side).transpose(2, 0, 1)
    np.testing.assert_array_equal(packed['inputs'].numpy(), expected)
    gt = packed['data_samples'].gt_sem_seg.data.numpy()
    np.testing.assert_array_equal(gt[0], by_pil(masks[0], Image.NEAREST, side))
    # and not on what OpenCV makes of the image
    assert (
        np.abs(cv2.resize(image, (side, side)).transpose(2, 0, 1) - expected.astype(int)).max() > 9
    )


@pytest.mark.parametrize('data', ['grefcoco', 'refcocog-umd'])
def test_rela_sees_stretched_polygons_in_training_and_test(tmp_path, data):
    image, _ = picture(tmp_path / 'it.png')
    triangle = [[100.0, 50.0, 400.0, 90.0, 250.0, 300.0]]
    given = item(tmp_path / 'it.png', np.zeros((1, 333, 517), np.uint8))
    given['instances'][0]['segmentation'] = triangle
    cfg = load('rela', f'rela_swin-base-w12_8xb6-150000i_{data}-480x480')
    assert cfg.train_dataloader.dataset.group_by == 'expression'
    assert cfg.train_dataloader.dataset.text_key == cfg.test_dataloader.dataset.text_key == 'raw'
    scaled = np.reshape(triangle, (3, 2)) * (480 / 517, 480 / 333)
    expected = cv2.fillPoly(np.zeros((480, 480), np.uint8), [np.round(scaled).astype(int)], 1)
    for pipeline in (
        cfg.train_dataloader.dataset.pipeline[1:],
        cfg.test_dataloader.dataset.pipeline,
    ):
        packed = Compose([TRANSFORMS.build(one) for one in pipeline])(dict(given, seg_fields=[]))
        resized = by_pil(image, Image.BILINEAR, 480).transpose(2, 0, 1)
        np.testing.assert_array_equal(packed['inputs'].numpy(), resized)
        gt = packed['data_samples'].gt_sem_seg.data[0].numpy()
        assert (gt & expected).sum() / (gt | expected).sum() > 0.97
    # a network that draws it well but says that there is nothing
    sample = packed['data_samples']
    said = sample.gt_sem_seg.data.float()
    output = HeadOutput(torch.stack([1 - said, said], 1))
    TASK_UTILS.build(cfg.model.test_cfg.protocol)(output, packed['inputs'], sample)
    for score, expected in ((-1.0, 100), (1.0, 0)):
        metric = METRICS.build(cfg.test_evaluator)
        sample.set_data(dict(no_target=torch.tensor([score])))
        metric.process(None, [sample.to_dict()])
        assert metric.evaluate(1)['cIoU'] == expected


@STRETCHED
def test_it_is_compared_at_the_size_of_its_input(tmp_path, method, name, side):
    _, masks = picture(tmp_path / 'it.png')
    cfg = load(method, name)
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
    assert metric.tie == '>='
    assert metric.empty_union == (0.0 if method == 'lavt' else 1.0)
