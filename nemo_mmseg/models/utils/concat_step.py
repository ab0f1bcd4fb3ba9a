"""A step from coarse to fine in which two maps stand side by side."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn


class ConcatStep(nn.Module):
    """Enlarge a coarse map, join it with the next finer one, convolve twice.

    Args:
        coarse_channels: Channels of the coarse map.
        fine_channels: Channels of the fine map.
        channels: Channels of the result.
        norm_cfg: Config of the normalisation.
        bias: Whether the convolutions have a bias.
    """

    def __init__(
        self,
        coarse_channels: int,
        fine_channels: int,
        channels: int,
        norm_cfg: dict,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = conv_norm_relu(coarse_channels + fine_channels, channels, norm_cfg, bias)
        self.conv2 = conv_norm_relu(channels, channels, norm_cfg, bias)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Join ``(E, C1, h, w)`` and ``(E, C2, H, W)`` to ``(E, C, H, W)``."""
        if coarse.shape[-2:] != fine.shape[-2:]:
            coarse = F.interpolate(coarse, fine.shape[-2:], mode='bilinear', align_corners=True)
        return self.conv2(self.conv1(torch.cat((coarse, fine), dim=1)))


def conv_norm_relu(
    in_channels: int, out_channels: int, norm_cfg: dict, bias: bool
) -> nn.Sequential:
    """Build 3x3 convolution, normalisation, ReLU, initialised by PyTorch."""
    layers = dict(
        conv=nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias),
        bn=build_norm_layer(norm_cfg, out_channels)[1],
        relu=nn.ReLU(inplace=True),
    )
    return nn.Sequential(OrderedDict(layers))
