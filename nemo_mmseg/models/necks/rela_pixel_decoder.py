"""ReLA's pixel decoder: four maps exchange what they know and get the same channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.utils.deformable_layer import DeformableLayer, join_levels, split_levels
from nemo_mmseg.models.utils.fpn_step import FPNStep


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
            DeformableLayer(channels, num_heads, len(others), feedforward_channels)
            for _ in range(num_layers)
        )
        self.fpn = FPNStep(finest, channels)
        self.mask_features = nn.Conv2d(channels, channels, 1)
        self._draw()

    def _draw(self) -> None:
        """Draw the initial values of layers and convolutions as published."""
        for layer in self.layers:
            for linear in (layer.ffn[0], layer.ffn[2]):
                nn.init.xavier_uniform_(linear.weight)
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
        pixels, positions, shapes = join_levels(maps, self.level_embed)
        for layer in self.layers:
            pixels = layer(pixels, positions, shapes)
        *coarser, fine = split_levels(pixels, shapes)
        return self.mask_features(self.fpn(fine, finest)), fine, *reversed(coarser)
