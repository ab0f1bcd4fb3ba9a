"""CRIS's protocol: probabilities are resampled, cubic, and compared with 0.35."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import TASK_UTILS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput

from .cubic_warp import warp_cubic
from .geometry import foreground_margin, image_to_input, original_shape, store


@TASK_UTILS.register_module()
class CRISProtocol(BaseModule):
    """Sigmoid, bicubic to the input, inverse letterbox to the image, threshold last.

    The probabilities, not the logits, are resized, with ``align_corners=True``; the letterbox is
    undone by one cubic ``cv2.warpAffine`` with 0 outside. Cubic resampling leaves [0, 1]: the mask
    is made from the plain values, the probabilities that are stored are clipped. Ties are
    background. Wang et al., *CRIS: CLIP-driven referring image segmentation*, 2022 (its code).

    Args:
        threshold: Probability in (0, 1). Defaults to the published 0.35.

    Raises:
        ValueError: ``threshold`` is out of range.
    """

    def __init__(self, threshold: float = 0.35) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f'CRISProtocol: threshold={threshold} is not in (0, 1)')
        self.threshold = threshold

    def forward(self, output: HeadOutput, image: Tensor, sample: SegDataSample) -> None:
        """Store the masks of a sample at its ``ori_shape``; its ground truth stays."""
        meta, size = sample.metainfo, tuple(image.shape[-2:])
        probability = foreground_margin(output.logits).sigmoid()[:, None]
        probability = F.interpolate(probability, size, mode='bicubic', align_corners=True)[:, 0]
        # The matrix leads from the image to the input: the direction in which values are looked up.
        matrix = image_to_input(meta, size)
        warped = warp_cubic(probability.float(), matrix, original_shape(meta, size))
        store(sample, warped.clamp(0, 1), warped > self.threshold)
