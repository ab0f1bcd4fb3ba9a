"""TRIS's protocol: a map is divided by its maximum, and compared with a threshold, as good as 0."""

from __future__ import annotations

import numpy as np
import torch
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
    sample_bilinear,
    store,
    stretch_matrix,
)


@TASK_UTILS.register_module()
class TRISProtocol(BaseModule):
    """Logits to the input's size, then to the image's, divided by the maximum, above 0.

    The first resize is bilinear, the second bilinear with ``align_corners=True``. Liu et al.,
    *Referring image segmentation using text supervision*, 2023 (its code). An input that was not
    simply stretched is brought back as it was made. ``seg_logits`` is the divided map: where it is
    largest, the network points to.

    Args:
        response: Whether the map is a response map (the first stage), whose negative values are cut
            between the two resizes. Masks then grow a little: a pixel is foreground where any of
            its neighbours responds. False is for logits (the second stage).
        flip_negative: What happens where all logits are negative. Published, the division turns
            their sign: all pixels are foreground, and the network points to the least likely one.
            False, our default, makes an empty mask.
        threshold: Share of the maximum, 0..1, above which a pixel is foreground. Defaults to the
            published 1e-9.

    Raises:
        ValueError: ``threshold`` is out of range.
    """

    def __init__(
        self, response: bool = True, flip_negative: bool = False, threshold: float = 1e-9
    ) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f'TRISProtocol: threshold={threshold} is not in (0, 1)')
        self.threshold = threshold
        self.response = response
        self.flip_negative = flip_negative

    def forward(self, output: HeadOutput, image: Tensor, sample: SegDataSample) -> None:
        """Store the masks of a sample at its ``ori_shape``; its ground truth stays."""
        maps = self.resize(output.logits, tuple(image.shape[-2:]), sample.metainfo)
        peak = maps.amax(dim=(1, 2), keepdim=True)
        value = maps / (peak + 1e-5)
        mask = value > self.threshold
        if self.flip_negative:
            # what was turned can exceed 1; the order of its pixels must stay
            probability = (value / value.amax(dim=(1, 2), keepdim=True).clamp(min=1)).clamp(min=0)
        else:
            probability = torch.where(peak < 0, maps.sigmoid(), value.clamp(min=0))
            mask = mask & (peak > 0)
        store(sample, probability, mask)

    def resize(self, logits: Tensor, size: tuple[int, int], meta: dict) -> Tensor:
        """Return maps ``(N, *ori_shape)``.

        Args:
            logits: ``(N, C, h, w)``.
            size: Height and width of the network's input.
            meta: Metainfo of the sample.
        """
        maps = foreground_margin(logits)[:, None]
        maps = F.interpolate(maps, size, mode='bilinear', align_corners=False)
        maps = maps.relu() if self.response else maps
        shape, matrix = original_shape(meta, size), image_to_input(meta, size)
        if np.allclose(matrix, stretch_matrix(shape, size)):
            return F.interpolate(maps, shape, mode='bilinear', align_corners=True)[:, 0]
        return sample_bilinear(maps[:, 0], matrix, shape)
