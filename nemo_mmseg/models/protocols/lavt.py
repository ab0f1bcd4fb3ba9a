"""LAVT's protocol: prediction and ground truth are compared at 480 x 480."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import TASK_UTILS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput

from .geometry import foreground_margin, sample_stretched, store, stretch_gt


@TASK_UTILS.register_module()
class LAVTProtocol(BaseModule):
    """Logits to the input's size, the larger channel, the ground truth stretched to that square.

    Logits are resized bilinearly with ``align_corners=True``; for one channel, "larger" means above
    0. Ties are background. The ground truth is resized with PIL's nearest neighbour. LAVT's own
    input is 480 x 480 and stretched; any other input is brought back to the image and stretched
    (bilinear). Yang et al., *LAVT: Language-aware vision transformer for referring image
    segmentation*, 2022 (its code).

    Args:
        size: Height and width of the comparison. Defaults to the published 480 x 480.
    """

    def __init__(self, size: Sequence[int] = (480, 480)) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, output: HeadOutput, image: Tensor, sample: SegDataSample) -> None:
        """Store the masks of a sample, and its ground truth, at ``size``."""
        meta, size = sample.metainfo, tuple(image.shape[-2:])
        margin = foreground_margin(output.logits)[:, None]
        margin = F.interpolate(margin, size, mode='bilinear', align_corners=True)[:, 0]
        margin = sample_stretched(margin, meta, size, self.size)
        store(sample, margin.sigmoid(), margin > 0)
        stretch_gt(sample, self.size)
