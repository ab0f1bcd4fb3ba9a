"""Position codes of sequences and maps, made of sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def relative_sine_position_2d(
    height: int, width: int, channels_per_axis: int = 128, device: torch.device | None = None
) -> Tensor:
    """Compute the position code of a map as detection transformers do.

    Rows and columns are counted from 1 and divided by their number, so that the last one is at a
    full turn whatever the size of the map. Carion et al., *End-to-end object detection with
    transformers*, 2020.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        channels_per_axis: Channels that tell the row, and that tell the column; even.
        device: Where the code is made.

    Returns:
        ``(2 * channels_per_axis, height, width)`` float32. The first half tells the row, the second
        the column; sine and cosine take turns.
    """
    rows = axis_code(height, channels_per_axis, device)[:, :, None].expand(-1, -1, width)
    columns = axis_code(width, channels_per_axis, device)[:, None].expand(-1, height, -1)
    return torch.cat((rows, columns))


def axis_code(length: int, channels: int, device: torch.device | None) -> Tensor:
    """Compute the code of one axis, ``(channels, length)`` float32."""
    places = torch.arange(1, length + 1, device=device, dtype=torch.float32)
    places = places / (length + 1e-6) * (2 * math.pi)
    pairs = torch.arange(0, channels, 2, device=device, dtype=torch.float32)
    angles = places / TEMPERATURE ** (pairs / channels)[:, None]
    return torch.stack((angles.sin(), angles.cos()), dim=1).flatten(0, 1)


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
