"""ReLA's pixel decoder: four maps exchange what they know and get the same channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.utils.deformable_attention import MultiScaleDeformableAttention
from nemo_mmseg.models.utils.fpn_step import FPNStep
from nemo_mmseg.models.utils.positions import sine_positions


@MODELS.register_module()
class ReLAPixelDecoder(BaseModule):
    """Deformable attention over three maps, and one pyramid step to the finest.

    It ignores the text, and is computed in float32 also under autocast, as published. Liu et al.,
    *GRES: generalized referring expression segmentation*, 2023; the parts are those of Cheng et
    al., *Masked-attention mask transformer for universal image segmentation*, 2022.

    Args:
        in_channels: Channels of the four maps, finest first.
        channels: Channels of the results; a multiple of 32, the groups of the norms.
        num_layers: Layers of attention.
        num_heads: Attention heads of a layer.
        feedforward_channels: Hidden size of a layer.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        finest, *others = in_channels
        self.input_projs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1), nn.GroupNorm(32, channels))
            for width in reversed(others)
        )
        self.level_embed = nn.Parameter(torch.randn(len(others), channels))
        self.layers = nn.ModuleList(
            PixelLayer(channels, num_heads, len(others), feedforward_channels)
            for _ in range(num_layers)
        )
        self.fpn = FPNStep(finest, channels)
        self.mask_features = nn.Conv2d(channels, channels, 1)
        self._draw()

    def _draw(self) -> None:
        """Draw the initial convolutions as published."""
        for projection, _ in self.input_projs:
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        for conv in (self.fpn.lateral.conv, self.fpn.output.conv, self.mask_features):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        nn.init.zeros_(self.mask_features.bias)

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Exchange what the maps know.

        Args:
            feats: Four maps ``(B, C, h, w)`` of stride 4, 8, 16 and 32.

        Returns:
            Four maps ``(B, channels, h, w)`` of the same sizes.
        """
        with torch.autocast(feats[0].device.type, enabled=False):
            return self._decode([feat.to(self.level_embed.dtype) for feat in feats])

    def _decode(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        finest, *others = feats
        maps = [proj(feat) for proj, feat in zip(self.input_projs, reversed(others))]
        shapes = [tuple(level.shape[-2:]) for level in maps]
        positions = [
            sine_positions(*shape, level.shape[1] // 2, level.device).flatten(1).T + embedding
            for shape, level, embedding in zip(shapes, maps, self.level_embed)
        ]
        pixels, position = torch.cat([level.flatten(2) for level in maps], 2), torch.cat(positions)
        pixels = pixels.transpose(1, 2)
        for layer in self.layers:
            pixels = layer(pixels, position, shapes)
        levels = pixels.transpose(1, 2).split([height * width for height, width in shapes], dim=2)
        *coarser, fine = [level.unflatten(2, shape) for level, shape in zip(levels, shapes)]
        return self.mask_features(self.fpn(fine, finest)), fine, *reversed(coarser)


class PixelLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each followed by its norm."""

    def __init__(
        self, channels: int, num_heads: int, num_levels: int, feedforward_channels: int
    ) -> None:
        super().__init__()
        self.ffn = nn.Sequential(
            nn.Linear(channels, feedforward_channels),
            nn.ReLU(inplace=True),
            nn.Linear(feedforward_channels, channels),
        )
        for layer in (self.ffn[0], self.ffn[2]):
            nn.init.xavier_uniform_(layer.weight)
        self.attention = MultiScaleDeformableAttention(channels, num_heads, num_levels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, pixels: Tensor, position: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """Update pixels ``(B, N, C)`` of all levels, whose position code is ``(N, C)``."""
        pixels = self.norm1(pixels + self.attention(pixels + position, pixels, shapes))
        return self.norm2(pixels + self.ffn(pixels))
