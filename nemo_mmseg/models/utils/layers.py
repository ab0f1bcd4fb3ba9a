"""Layers and position codes that several networks share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 10000.0


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


def sine_position_1d(length: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Compute the position code of a sequence, sine and cosine interleaved.

    Vaswani et al., *Attention is all you need*, 2017.

    Args:
        length: Number of positions, which are numbered 0 to ``length - 1``.
        channels: Size of the code; even.
        device: Where the table is made.

    Returns:
        ``(length, channels)`` float32.
    """
    rates = torch.arange(0, channels, 2, device=device, dtype=torch.float32)
    rates = torch.exp(rates * -(math.log(TEMPERATURE) / channels))
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def sine_position_2d(
    height: int, width: int, channels: int, device: torch.device | None = None
) -> Tensor:
    """Compute the position code of a map: its first half tells x, its second half y.

    Returns:
        ``(height * width, channels)`` float32, row by row; ``channels`` is a multiple of four.
    """
    x = sine_position_1d(width, channels // 2, device)
    y = sine_position_1d(height, channels // 2, device)
    x, y = x[None].expand(height, -1, -1), y[:, None].expand(-1, width, -1)
    return torch.cat((x, y), dim=-1).flatten(0, 1)
