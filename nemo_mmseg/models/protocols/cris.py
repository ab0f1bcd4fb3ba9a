"""CRIS's protocol: probabilities are resampled, cubic, and compared with 0.35."""

from __future__ import annotations

import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from .cubic_warp import warp_cubic
from .geometry import foreground_margin, image_to_input, original_shape, store


def cris(
    logits: Tensor, sample: SegDataSample, input_shape: tuple[int, int], threshold: float = 0.35
) -> None:
    """Sigmoid, bicubic to the input, inverse letterbox to the image, threshold last.

    The probabilities, not the logits, are resized, with ``align_corners=True``; the letterbox is
    undone by one cubic ``cv2.warpAffine`` with 0 outside. Cubic resampling leaves [0, 1]: the mask
    is made from the plain values, the probabilities that are stored are clipped. Ties are
    background. Wang et al., *CRIS: CLIP-driven referring image segmentation*, 2022 (its code).

    Args:
        logits: (N, 1 or 2, h, w).
        sample: Gets the prediction at ``ori_shape``; its truth stays.
        input_shape: Height and width of the network's input.
        threshold: The published 0.35 unless told.
    """
    meta = sample.metainfo
    probability = foreground_margin(logits).sigmoid()[:, None]
    probability = F.interpolate(probability, input_shape, mode='bicubic', align_corners=True)[:, 0]
    # The matrix leads from the image to the input: the direction in which values are looked up.
    matrix = image_to_input(meta, input_shape)
    warped = warp_cubic(probability.float(), matrix, original_shape(meta, input_shape))
    store(sample, warped.clamp(0, 1), warped > threshold)
