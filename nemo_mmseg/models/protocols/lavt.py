"""LAVT's protocol: prediction and truth are compared at 480 x 480."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from .geometry import (
    compose,
    foreground_margin,
    image_to_input,
    original_shape,
    sample_bilinear,
    store,
    stretch_matrix,
)


def lavt(
    logits: Tensor,
    sample: SegDataSample,
    input_shape: tuple[int, int],
    size: tuple[int, int] = (480, 480),
) -> None:
    """Logits to the input's size, the larger channel, and the truth stretched to the same square.

    Logits are resized bilinearly with ``align_corners=True``; for one channel, "larger" means above
    0. Ties are background. The truth is resized with PIL's nearest neighbour. LAVT's own input is
    480 x 480 and stretched; any other input is brought back to the image and stretched (bilinear).
    Yang et al., *LAVT: Language-aware vision transformer for referring image segmentation*, 2022
    (its code).

    Args:
        logits: (N, 1 or 2, h, w).
        sample: Gets prediction *and* truth at ``size``.
        input_shape: Height and width of the network's input.
        size: Height and width of the comparison. Defaults to the published 480 x 480.
    """
    meta = sample.metainfo
    margin = foreground_margin(logits)[:, None]
    margin = F.interpolate(margin, input_shape, mode='bilinear', align_corners=True)[:, 0]
    to_image = stretch_matrix(size, original_shape(meta, input_shape))
    margin = sample_bilinear(margin, compose(image_to_input(meta, input_shape), to_image), size)
    store(sample, margin.sigmoid(), margin > 0)
    if 'gt_sem_seg' in sample:
        truth = sample.gt_sem_seg.data
        resized = F.interpolate(truth[:, None].float(), size, mode='nearest-exact')[:, 0]
        del sample.gt_sem_seg
        sample.set_data({'gt_sem_seg': PixelData(data=resized.to(truth.dtype))})
