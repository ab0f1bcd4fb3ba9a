"""The ground truth as heads compare with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor


def gt_like(logits: Tensor, data_samples: list[SegDataSample], resize: str = 'nearest') -> Tensor:
    """Bring the ground truth of all expressions to the size of the logits.

    Args:
        logits: ``(E, ..., h, w)``.
        data_samples: With ``gt_sem_seg`` ``(N, H, W)``, E masks in all.
        resize: ``'nearest'`` takes the first pixel of each cell, as CRIS does; masks learnt so lie
            about a third of a cell too far right and down. ``'area'`` asks what most of a cell is.

    Returns:
        ``(E, h, w)`` long, 255 = ignore.

    Raises:
        ValueError: There are more expressions than masks, or fewer.
    """
    masks = torch.cat([sample.gt_sem_seg.data for sample in data_samples]).to(logits.device)
    if len(masks) != len(logits):
        raise ValueError(f'{len(logits)} expressions, but ground truth for {len(masks)}')
    size = logits.shape[-2:]
    if masks.shape[-2:] != size:
        if resize == 'nearest':
            masks = F.interpolate(masks[:, None].float(), size, mode='nearest')[:, 0]
        else:
            parts = torch.stack((masks == 1, masks == 255), dim=1).float()
            foreground, ignored = F.interpolate(parts, size, mode='area').unbind(dim=1)
            masks = (foreground >= 0.5).long().masked_fill(ignored > 0, 255)
    return masks.long()


@torch.no_grad()
def training_iou(predicted: Tensor, gt: Tensor) -> Tensor:
    """Compute the mean IoU in per cent over the expressions of a batch; an empty union counts 0.

    Args:
        predicted: ``(E, h, w)`` bool.
        gt: ``(E, h, w)``, 0, 1 or 255 = ignore.
    """
    known, foreground = gt != 255, gt == 1
    intersection = (predicted & foreground).flatten(1).sum(1)
    union = ((predicted | foreground) & known).flatten(1).sum(1)
    return 100 * (intersection / union.clamp(min=1)).mean()


def no_target_of(data_samples: list[SegDataSample]) -> Tensor:
    """Tell which expressions have no target.

    Args:
        data_samples: With ``gt_sem_seg`` ``(N, H, W)``. The number of an expression's targets is
            ``num_targets`` of the metainfo; without it, an empty mask means no target.

    Returns:
        ``(E,)`` bool, on the CPU where all samples have ``num_targets``.
    """
    rows = []
    for sample in data_samples:
        counts = sample.metainfo.get('num_targets')
        if counts is None:
            rows.append(~(sample.gt_sem_seg.data == 1).flatten(1).any(dim=1))
        else:
            rows.append(torch.tensor([count == 0 for count in counts]))
    return torch.cat(rows)
