"""What the tests of recipes share: configs, who learns how fast, a picture with masks."""

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from PIL import Image

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


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
