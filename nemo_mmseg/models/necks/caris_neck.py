"""CARIS's neck: what the image alone gives to the text encoder and to the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from nemo_mmseg.models.utils.layers import mlp

GRIDS = 1, 2  # cells on each side of the map that prompts are made of


@MODELS.register_module()
class CARISNeck(BaseModule):
    """Neck that brings three maps to one width and makes language prompts of the coarsest.

    It sees no text, so it runs once per image. Liu et al., *CARIS: context-aware referring image
    segmentation*, 2023.

    Args:
        in_channels: Channels of the four maps, finest first; the finest passes as it is.
        channels: Channels of the three others; a multiple of 32.
        word_channels: Size of a prompt: that of a word feature.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (128, 256, 512, 1024),
        channels: int = 256,
        word_channels: int = 768,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm_cfg = dict(type='GN', num_groups=32)
        self.levels = nn.ModuleList(
            ConvModule(one, channels, 1, bias=True, norm_cfg=norm_cfg, act_cfg=None)
            for one in in_channels[1:]
        )
        self.prompts = LanguagePrompts(in_channels[-1], word_channels)

    def init_weights(self) -> None:
        """Draw the prompts' linear layers as published; convolutions are as mmcv drew them."""
        super().init_weights()
        for layer in self.prompts.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute maps and prompts of B images.

        Args:
            feats: Four maps ``(B, C, h, w)``, finest first.

        Returns:
            The finest map, three maps with ``channels`` channels, finest first, and the prompts
            ``(B, 5, word_channels)``.
        """
        fine, *coarser = feats
        maps = [conv(x) for conv, x in zip(self.levels, coarser)]
        return fine, *maps, self.prompts(coarser[-1])


class LanguagePrompts(nn.Module):
    """Words that the image says: one of the whole of it, four of its quarters.

    Args:
        in_channels: Channels of the map.
        word_channels: Size of a prompt.
    """

    def __init__(self, in_channels: int, word_channels: int) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(mlp(in_channels, word_channels, word_channels) for _ in GRIDS)
        self.learned = nn.Parameter(torch.randn(sum(n * n for n in GRIDS), word_channels))
        self.norm = nn.LayerNorm(word_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Make prompts ``(B, P, word_channels)`` of maps ``(B, in_channels, h, w)``.

        Cells overlap where their number does not divide the side. They are in order row by row.
        """
        cells = (adaptive_avg_pool2d(x, n).flatten(2).transpose(1, 2) for n in GRIDS)
        seen = torch.cat([mlp(cell) for mlp, cell in zip(self.mlps, cells)], dim=1)
        return self.norm(seen + self.learned)
