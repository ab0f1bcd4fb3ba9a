"""The recipes of the configs are the published ones: who learns how fast, and what is compared."""

import re
from collections import Counter
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

from nemo_mmseg.models.converters.rename import inverse, translate
from nemo_mmseg.models.converters.vpd import convert_vpd
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


def test_groups_of_vpd():
    changes = {
        'model.text_encoder.clip': dict(model='RefShapes-CLIP', pretrained='refshapes'),
        'model.text_encoder.context_length': 32,
        'model.backbone.block_channels': (32, 64, 128, 128),
        'model.backbone.pretrained': None,
        'model.neck': dict(block_channels=(32, 64, 128, 128), word_channels=128, pretrained=None),
    }
    cfg = load('vpd', 'vpd_sd15_8xb4-40e_refcoco-512x512', changes)
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    groups, back = learned(optimizer), inverse(convert_vpd.table)
    counts = Counter()
    for name, parameter in model.named_parameters():
        # published groups go by published names
        theirs = translate(back, name)
        if 'encoder_vq' in theirs:
            assert not parameter.requires_grad and id(parameter) not in groups
            counts['frozen'] += 1
            continue
        without = 'norm' in theirs
        assert groups[id(parameter)] == (5e-5, 0.0 if without else 0.01), name
        counts['norm' if without else 'unet' if 'unet' in theirs else 'rest'] += 1
    # published: 128, 558, 110 and 25; four of the UNet and two of the encoder feed nothing
    assert counts == dict(norm=128, unet=558 - 4, frozen=110 - 2, rest=25)


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


# What reads and compares stretched squares: a config, the side, and the expressions it reads.
STRETCHED = pytest.mark.parametrize(
    'name, side, text_key',
    [
        ('lavt_swin-tiny-w7_4xb8-40e_refcoco-480x480', 480, 'raw'),
        ('vpd_sd15_8xb4-40e_refcoco-512x512', 512, 'sent'),
    ],
)


@STRETCHED
def test_images_and_masks_of_training_are_what_pil_makes(name, side, text_key, tmp_path):
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
def test_masks_are_compared_as_squares(name, side, text_key, tmp_path):
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
    assert metric.tie == '>=' and metric.empty_union == 0.0
