"""Layers that several networks share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Build a convolution without bias that keeps the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def twice(x: Tensor) -> Tensor:
    """Resize maps ``(B, C, h, w)`` bilinearly to twice the size."""
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


def mlp(*channels: int) -> nn.Sequential:
    """Build linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for width, following in zip(channels, channels[1:]):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
