"""The default protocol: masks at the size of the original image."""

from __future__ import annotations

import math

import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from .geometry import foreground_margin, image_to_input, original_shape, sample_bilinear, store


def original(
    logits: Tensor, sample: SegDataSample, input_shape: tuple[int, int], threshold: float = 0.5
) -> None:
    """Resize the logits to the input, undo letterbox or stretch, compare with a threshold.

    Both resizes are bilinear and of logits. A pixel is foreground if its probability is *above* the
    threshold, so that ties (two equal channels, for instance) are background.

    Args:
        logits: (N, 1 or 2, h, w).
        sample: Gets the prediction at ``ori_shape``; its truth stays.
        input_shape: Height and width of the network's input.
        threshold: Probability in (0, 1). Defaults to 0.5, which for two channels is the larger one.
    """
    meta = sample.metainfo
    margin = foreground_margin(logits)[:, None]
    margin = F.interpolate(margin, input_shape, mode='bilinear', align_corners=False)[:, 0]
    matrix = image_to_input(meta, input_shape)
    margin = sample_bilinear(margin, matrix, original_shape(meta, input_shape))
    # Compared before the sigmoid, which would round small margins to a tie.
    store(sample, margin.sigmoid(), margin > math.log(threshold / (1 - threshold)))
