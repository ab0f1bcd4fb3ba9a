"""CGFormer's protocol: probabilities are enlarged, cubic, to the image and compared with 0.5."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import TASK_UTILS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput

from .geometry import (
    foreground_margin,
    image_to_input,
    original_shape,
    sample_bicubic,
    store,
)


@TASK_UTILS.register_module()
class CGFormerProtocol(BaseModule):
    """Logits to the input's size, sigmoid, bicubic to the image, threshold last.

    The probabilities are resized with ``align_corners=True``: the outermost pixels of image and
    input fall together. CGFormer's own input is stretched; where it is not, the image's part of it
    is taken. Cubic resampling leaves [0, 1]: the mask is made from the plain values, the
    probabilities that are stored are clipped. Ties are background. Tang et al., *Contrastive
    grouping with Transformer for referring image segmentation*, 2023 (its code).

    Args:
        threshold: Probability in (0, 1). Defaults to the published 0.5.

    Raises:
        ValueError: ``threshold`` is out of range.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f'CGFormerProtocol: threshold={threshold} is not in (0, 1)')
        self.threshold = threshold

    def forward(self, output: HeadOutput, image: Tensor, sample: SegDataSample) -> None:
        """Store the masks of a sample at its ``ori_shape``; its ground truth stays."""
        meta, size = sample.metainfo, tuple(image.shape[-2:])
        margin = foreground_margin(output.logits)[:, None]
        margin = F.interpolate(margin, size, mode='bilinear', align_corners=True)[:, 0]
        shape = original_shape(meta, size)
        matrix = corners_aligned(image_to_input(meta, size), shape)
        probability = sample_bicubic(margin.sigmoid(), matrix, shape)
        store(sample, probability.clamp(0, 1), probability > self.threshold)


def corners_aligned(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Move the image's outermost pixels to where its part of the input has its outermost pixels.

    Args:
        matrix: ``(2, 3)``, from pixels of the image to those of the input; it lays edges on edges.
        shape: Height and width of the image.

    Returns:
        ``(2, 3)``: the middle of the image stays where it is.
    """
    sides = np.array(shape[::-1])
    lengths = np.linalg.norm(matrix[:, :2], axis=0)  # of one pixel
    axes = matrix[:, :2] * (lengths * sides - 1) / (lengths * np.maximum(sides - 1, 1))
    middle = (sides - 1) / 2
    return np.column_stack([axes, matrix @ [*middle, 1] - axes @ middle])
