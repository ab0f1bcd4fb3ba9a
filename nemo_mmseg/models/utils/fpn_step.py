"""A step of a feature pyramid, from coarse to fine."""

from __future__ import annotations

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn


class FPNStep(nn.Module):
    """Add a coarse map to a finer one and convolve the sum.

    The fine map goes through a 1x1 convolution and a group norm, the coarse map is enlarged
    bilinearly, and their sum goes through a 3x3 convolution, a group norm and ReLU. Lin et al.,
    *Feature pyramid networks for object detection*, 2017.

    Args:
        fine_channels: Channels of the fine map.
        channels: Channels of the coarse map and of the result; a multiple of 32.
    """

    def __init__(self, fine_channels: int, channels: int) -> None:
        super().__init__()
        norm_cfg = dict(type='GN', num_groups=32)
        self.lateral = ConvModule(fine_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=None)
        self.output = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Join ``(B, channels, h, w)`` and ``(B, fine_channels, H, W)``.

        Returns:
            ``(B, channels, H, W)``.
        """
        size = fine.shape[-2:]
        coarse = F.interpolate(coarse, size, mode='bilinear', align_corners=False)
        return self.output(self.lateral(fine) + coarse)
