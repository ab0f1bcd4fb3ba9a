"""Attention that reads maps of several sizes at a few places of its choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_POINTS = 4  # places on each level that a head reads


@cache
def compiled_sampling() -> type[torch.autograd.Function] | None:
    """Return mmcv's compiled sampling; None where mmcv was built without it."""
    try:
        from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
    except ImportError:
        return None
    return MultiScaleDeformableAttnFunction


def deformable_sampling(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Read several maps at given places, bilinearly, and add up what is found.

    On a GPU it is mmcv's compiled function, where there is one; the results are equal.

    Args:
        value: The pixels of all levels, one level after the other, ``(B, N, heads, C)``.
        shapes: Height and width of each level; their products add up to N.
        locations: Places x, y ``(B, Q, heads, levels, points, 2)``. 0 and 1 are the outer edges of
            a map; around it everything is 0.
        weights: What the places are multiplied by, ``(B, Q, heads, levels, points)``.

    Returns:
        ``(B, Q, heads * C)``.
    """
    if value.is_cuda and value.dtype in (torch.float32, torch.float64):
        compiled = compiled_sampling()
        if compiled is not None:
            sizes = torch.tensor(shapes, device=value.device)
            areas = sizes.prod(dim=1)
            starts = areas.cumsum(0) - areas
            # all images of the batch at once
            return compiled.apply(
                value.contiguous(), sizes, starts, locations.contiguous(), weights, len(value)
            )
    levels = value.split([height * width for height, width in shapes], dim=1)
    total = 0
    for i, (level, shape) in enumerate(zip(levels, shapes, strict=True)):
        maps = level.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, shape)  # (B * heads, C, h, w)
        places = 2 * locations[:, :, :, i].transpose(1, 2).flatten(0, 1) - 1
        found = F.grid_sample(maps, places, align_corners=False)  # (B * heads, C, Q, points)
        shares = weights[:, :, :, i].transpose(1, 2).flatten(0, 1)
        total = total + torch.einsum('bcqp,bqp->bqc', found, shares)
    # (B * heads, Q, C) -> (B, Q, heads * C)
    return total.unflatten(0, (value.shape[0], -1)).transpose(1, 2).flatten(2)


def pixel_centres(
    shapes: Sequence[tuple[int, int]], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return x and y, 0 to 1, of the pixels of all levels, ``(N, 2)``."""
    centres = []
    for height, width in shapes:
        y = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
        centres.append(torch.cartesian_prod(y, x).flip(-1))
    return torch.cat(centres)


class MultiScaleDeformableAttention(nn.Module):
    """Self-attention of the pixels of several levels.

    Each pixel looks at a few places around its own, on every level, and says itself where they are
    and how much each counts. Zhu et al., *Deformable DETR: deformable transformers for end-to-end
    object detection*, 2021.

    Args:
        embed_dims: Channels of the pixels; a multiple of the heads.
        num_heads: Attention heads.
        num_levels: Levels.
    """

    def __init__(self, embed_dims: int, num_heads: int = 8, num_levels: int = 3) -> None:
        super().__init__()
        self.layout = num_heads, num_levels, NUM_POINTS
        places = num_heads * num_levels * NUM_POINTS
        self.sampling_offsets = nn.Linear(embed_dims, places * 2)
        self.attention_weights = nn.Linear(embed_dims, places)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.init_weights()

    def init_weights(self) -> None:
        """Let each head look into a direction of its own, and every place count the same."""
        num_heads, num_levels, num_points = self.layout
        angles = torch.arange(num_heads) * (2 * math.pi / num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, num_points + 1)[:, None]
        offsets = (directions[:, None, None] * steps).expand(-1, num_levels, -1, -1)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, value: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Gather what each pixel looks at. There is no residual connection.

        Args:
            query: What the places and their weights are computed from, ``(B, N, C)``: the pixels,
                with positions, of all levels, one level after the other.
            value: What is read, ``(B, N, C)``.
            shapes: Height and width of each level; their products add up to N.

        Returns:
            ``(B, N, C)``.
        """
        num_heads, num_levels, num_points = self.layout
        places = self.sampling_offsets(query).unflatten(-1, (*self.layout, 2))
        weights = self.attention_weights(query).unflatten(-1, (num_heads, num_levels * num_points))
        weights = weights.softmax(dim=-1).unflatten(-1, (num_levels, num_points))
        # Offsets are in pixels of the level that is read.
        sizes = query.new_tensor([(width, height) for height, width in shapes])[:, None]
        centres = pixel_centres(shapes, query.device, query.dtype)[:, None, None, None]
        value = self.value_proj(value).unflatten(-1, (num_heads, -1))
        return self.output_proj(
            deformable_sampling(value, shapes, centres + places / sizes, weights)
        )
