"""The recipe of ReLA is the published one: who learns how fast, and what is compared."""

import re

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmseg.registry import METRICS, MODELS, TASK_UTILS, TRANSFORMS
from PIL import Image
from pycocotools import mask as coco_mask
from recipe_helpers import LAVT, by_pil, item, lavt_without_decay, learned, load, picture

from nemo_mmseg.models.structures import HeadOutput


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
    expected = coco_mask.decode(coco_mask.frPyObjects([scaled.flatten().tolist()], 480, 480)[0])
    for pipeline in (
        cfg.train_dataloader.dataset.pipeline[1:],
        cfg.test_dataloader.dataset.pipeline,
    ):
        packed = Compose([TRANSFORMS.build(one) for one in pipeline])(dict(given, seg_fields=[]))
        resized = by_pil(image, Image.BILINEAR, 480).transpose(2, 0, 1)
        np.testing.assert_array_equal(packed['inputs'].numpy(), resized)
        gt = packed['data_samples'].gt_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(gt, expected)
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
