"""What open_clip's image encoders have in common: a position table that can be resized."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def position_table(visual: nn.Module, model: str) -> tuple[str, Tensor, int]:
    """Find the position table of an image encoder.

    Args:
        visual: open_clip's image encoder.
        model: Name of the model, for messages.

    Returns:
        Name of the table in the encoder; the table ``(1 + g * g, C)``, one row for the whole image
        first; pixels between two positions.

    Raises:
        ValueError: The encoder is neither a ViT nor a CLIP ResNet of open_clip's own.
    """
    if hasattr(visual, 'attnpool') and hasattr(visual, 'layer4'):
        return 'attnpool.positional_embedding', visual.attnpool.positional_embedding, 32
    if hasattr(visual, 'positional_embedding') and hasattr(visual, 'class_embedding'):
        stride = visual.patch_size
        stride = stride if isinstance(stride, int) else stride[0]
        return 'positional_embedding', visual.positional_embedding, stride
    raise ValueError(
        f'the image encoder of CLIP model {model!r}, {type(visual).__name__}, is neither a ViT nor '
        "a CLIP ResNet of open_clip's own"
    )


def resized_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a position table, bicubic.

    Args:
        table: ``(1 + g * g, C)``, of a square grid; the first row stays.
        grid: Height and width in positions.

    Returns:
        ``(1 + height * width, C)``; the table itself if it has that grid.
    """
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    maps = table[1:].T.unflatten(1, (side, side))[None]
    maps = F.interpolate(maps, grid, mode='bicubic', align_corners=False)
    return torch.cat([table[:1], maps[0].flatten(1).T])
