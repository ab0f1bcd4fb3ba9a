"""Fixed sinusoidal position codes, in one and two dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def sine_position_1d(length: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Position code of a sequence, sine and cosine interleaved.

    Vaswani et al., *Attention is all you need*, 2017.

    Args:
        length: Number of positions, which are numbered 0 to ``length - 1``.
        channels: Size of the code; even.
        device: Where the table is made.

    Returns:
        (length, channels) float32.
    """
    if channels % 2:
        raise ValueError(f'a sinusoidal position code needs an even size, not {channels}')
    rates = torch.arange(0, channels, 2, device=device, dtype=torch.float32)
    rates = torch.exp(rates * -(math.log(TEMPERATURE) / channels))
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def sine_position_2d(
    height: int, width: int, channels: int, device: torch.device | None = None
) -> Tensor:
    """Position code of a map: its first half tells x, its second half y.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        channels: Size of the code; a multiple of four.
        device: Where the table is made.

    Returns:
        (height * width, channels) float32, row by row.
    """
    x = sine_position_1d(width, channels // 2, device)
    y = sine_position_1d(height, channels // 2, device)
    table = torch.cat(
        (x[None].expand(height, -1, -1), y[:, None].expand(-1, width, -1)),
        dim=-1,
    )
    return table.flatten(0, 1)
