"""ReLA's protocol: prediction and ground truth are compared at 480 x 480, by their sigmoids."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import TASK_UTILS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput

from .geometry import sample_stretched, store, stretch_gt


@TASK_UTILS.register_module()
class ReLAProtocol(BaseModule):
    """Logits to the input's size, the larger *sigmoid* of the two, the ground truth stretched.

    Logits are resized bilinearly with ``align_corners=False``. Ties are background; in float32 both
    sigmoids are 1 from about 17 on, so that there are some, as published. ReLA's own input is 480 x
    480 and stretched; any other input is brought back to the image and stretched (bilinear). The
    ground truth is resized with PIL's nearest neighbour unless it has that size already.

    A mask stays where the network says that there is no target: the metric follows ``no_target``.
    Liu et al., *GRES: generalized referring expression segmentation*, 2023 (its code).

    Args:
        size: Height and width of the comparison. Defaults to the published 480 x 480.
    """

    def __init__(self, size: Sequence[int] = (480, 480)) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, output: HeadOutput, image: Tensor, sample: SegDataSample) -> None:
        """Store the masks of a sample, and its ground truth, at ``size``."""
        meta, size = sample.metainfo, tuple(image.shape[-2:])
        logits = F.interpolate(output.logits, size, mode='bilinear', align_corners=False)
        logits = sample_stretched(logits.flatten(0, 1), meta, size, self.size)
        background, foreground = logits.unflatten(0, (-1, 2)).unbind(dim=1)
        mask = foreground.sigmoid() > background.sigmoid()
        store(sample, (foreground - background).sigmoid(), mask)
        stretch_gt(sample, self.size)
