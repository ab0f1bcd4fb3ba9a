"""The default protocol: masks at the size of the original image."""

from __future__ import annotations

import math

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import TASK_UTILS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput

from .geometry import foreground_margin, image_to_input, original_shape, sample_bilinear, store


@TASK_UTILS.register_module()
class OriginalProtocol(BaseModule):
    """Resize the logits to the input, undo letterbox or stretch, compare with a threshold.

    Both resizes are bilinear and of logits. A pixel is foreground if its probability is *above* the
    threshold, so that ties (two equal channels, for instance) are background.

    Args:
        threshold: Probability in (0, 1). Defaults to 0.5, which for two channels is the larger one.

    Raises:
        ValueError: ``threshold`` is out of range.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f'OriginalProtocol: threshold={threshold} is not in (0, 1)')
        self.threshold = threshold

    def forward(self, output: HeadOutput, image: Tensor, sample: SegDataSample) -> None:
        """Store the masks of a sample at its ``ori_shape``; its ground truth stays."""
        meta, size = sample.metainfo, tuple(image.shape[-2:])
        margin = foreground_margin(output.logits)[:, None]
        margin = F.interpolate(margin, size, mode='bilinear', align_corners=False)[:, 0]
        margin = sample_bilinear(margin, image_to_input(meta, size), original_shape(meta, size))
        # Compared before the sigmoid, which would round small margins to a tie.
        store(sample, margin.sigmoid(), margin > math.log(self.threshold / (1 - self.threshold)))
