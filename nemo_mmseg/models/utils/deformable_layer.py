"""A layer in which the pixels of several maps look at each other, and how the maps are joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .deformable_attention import MultiScaleDeformableAttention
from .layers import mlp
from .positions import relative_sine_position_2d


class DeformableLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each followed by its norm.

    Attention is computed in the precision of the pixels, also under autocast: offsets are fine. Zhu
    et al., *Deformable DETR: deformable transformers for end-to-end object detection*, 2021.

    Args:
        channels: Channels of the pixels; a multiple of the heads.
        num_heads: Attention heads.
        num_levels: Maps.
        feedforward_channels: Hidden size of the feed-forward network.
    """

    def __init__(
        self, channels: int, num_heads: int, num_levels: int, feedforward_channels: int
    ) -> None:
        super().__init__()
        self.attention = MultiScaleDeformableAttention(channels, num_heads, num_levels)
        self.ffn = mlp(channels, feedforward_channels, channels)
        self.attention_norm, self.ffn_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(
        self, pixels: Tensor, positions: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Update pixels ``(B, N, C)`` of all maps. See :func:`join_levels`."""
        with torch.autocast(pixels.device.type, enabled=False):
            seen = self.attention(pixels + positions, pixels, shapes)
        pixels = self.attention_norm(pixels + seen)
        return self.ffn_norm(pixels + self.ffn(pixels))


def join_levels(
    maps: Sequence[Tensor], codes: Tensor
) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Lay the pixels of several maps one level after the other.

    Args:
        maps: ``(B, C, h, w)`` each; C is a multiple of four.
        codes: What tells the level, ``(levels, C)``.

    Returns:
        Pixels ``(B, N, C)``; their positions, which tell the level, too, ``(N, C)``; height and
        width of each level.
    """
    shapes = [tuple(level.shape[-2:]) for level in maps]
    pixels = torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2)
    axis = pixels.shape[-1] // 2
    positions = [
        relative_sine_position_2d(*shape, axis, pixels.device).flatten(1).T + code
        for shape, code in zip(shapes, codes, strict=True)
    ]
    return pixels, torch.cat(positions), shapes


def split_levels(pixels: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Make maps ``(B, C, h, w)`` of pixels ``(B, N, C)``, as :func:`join_levels` laid them."""
    levels = pixels.transpose(1, 2).split([height * width for height, width in shapes], dim=2)
    return [level.unflatten(2, shape) for level, shape in zip(levels, shapes)]
