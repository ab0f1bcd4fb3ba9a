"""CARIS's head: words and pixels read each other, then pixels are compared with two vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.deformable_layer import DeformableLayer, join_levels, split_levels
from nemo_mmseg.models.utils.few_token_attention import FewKeyAttention, FewQueryAttention
from nemo_mmseg.models.utils.fpn_step import FPNStep
from nemo_mmseg.models.utils.layers import mlp

from .two_class_head import TwoClassHead

LEVELS = 3


@MODELS.register_module()
class CARISHead(TwoClassHead):
    """Head that compares every pixel with the expression and with what is not meant.

    In each layer the words, and prompts that stand for the background, read the pixels of three
    levels; then the pixels read them and each other. At the end a pixel's logits are its products
    with the mean prompt (background) and with the first word, [CLS] (object). Liu et al., *CARIS:
    context-aware referring image segmentation*, 2023.

    Args:
        fine_channels: Channels of the finest map.
        channels: Channels of the three other maps and of the decoder; a multiple of 32 and of the
            heads.
        word_channels: Size of a word feature.
        num_layers: Decoder layers.
        num_heads: Attention heads.
        num_prompts: Vectors that stand for the background.
        loss_decode: See :class:`TwoClassHead`.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        fine_channels: int = 128,
        channels: int = 256,
        word_channels: int = 768,
        num_layers: int = 6,
        num_heads: int = 8,
        num_prompts: int = 5,
        loss_decode: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_decode, init_cfg)
        self.level_codes = nn.Parameter(torch.randn(LEVELS, channels))
        self.word_proj = nn.Linear(word_channels, channels)
        self.word_norm = nn.LayerNorm(channels)
        self.prompts = nn.Parameter(torch.randn(num_prompts, channels))
        self.layers = nn.ModuleList(CARISLayer(channels, num_heads) for _ in range(num_layers))
        self.fpn = FPNStep(fine_channels, channels)
        self.pixel_mlp = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )
        self.class_mlp = mlp(channels, channels, channels, channels)

    def init_weights(self) -> None:
        """Draw the layers as published; all else keeps the values of PyTorch and mmcv."""
        super().init_weights()
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for layer in self.layers:
            layer.pixel_layer.attention.init_weights()

    def forward(self, feats: Sequence[Tensor], text: TextFeatures) -> HeadOutput:
        """Compare every pixel with every expression.

        Args:
            feats: What :class:`CARISNeck` returns of the images that ``text.image_index`` names.
            text: The expressions.

        Returns:
            Logits ``(E, 2, h, w)``, at the size of the finest map: background, object.
        """
        fine, *levels, _ = feats
        pixels = self.decode(levels, text)
        x = self.pixel_mlp(self.fpn(pixels[0], text.rows(fine)))
        return HeadOutput(torch.einsum('ekc,echw->ekhw', self.class_mlp(pixels[1]), x))

    def decode(self, levels: Sequence[Tensor], text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Run the layers.

        Args:
            levels: Maps ``(B, C, h, w)`` of the images, finest first.
            text: The expressions.

        Returns:
            The finest map ``(E, C, h, w)``, and what stands for background and object,
            ``(E, 2, C)``.
        """
        pixels, positions, shapes = join_levels(levels[::-1], self.level_codes)
        # The sums along the layers stay in float32, also under autocast.
        pixels = text.rows(pixels.to(torch.promote_types(pixels.dtype, torch.float32)))
        positions = positions.to(pixels.dtype)
        words = self.word_norm(self.word_proj(text.words))
        tokens = torch.cat((words, self.prompts.expand(words.shape[0], -1, -1)), dim=1)
        mask = torch.cat((text.mask, text.mask.new_ones(words.shape[0], len(self.prompts))), dim=1)
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, positions, mask, shapes)
        classes = torch.stack((tokens[:, words.shape[1] :].mean(dim=1), tokens[:, 0]), dim=1)
        return split_levels(pixels, shapes)[-1], classes


class CARISLayer(nn.Module):
    """Layer in which tokens read pixels and each other, then pixels read tokens and each other."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.token_pixel_attention = FewQueryAttention(channels, num_heads)
        self.token_attention = FewKeyAttention(channels, num_heads)
        self.token_ffn = mlp(channels, 4 * channels, channels)
        self.pixel_token_attention = FewKeyAttention(channels, num_heads)
        self.pixel_norm = nn.LayerNorm(channels)
        self.pixel_layer = DeformableLayer(channels, num_heads, LEVELS, 4 * channels)
        self.token_norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.token_scale = nn.Parameter(torch.ones(channels))
        self.pixel_scale = nn.Parameter(torch.ones(channels))

    def forward(
        self,
        tokens: Tensor,
        pixels: Tensor,
        positions: Tensor,
        mask: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """Run the layer.

        Args:
            tokens: Words and prompts ``(E, T, C)``.
            pixels: ``(E, N, C)``, those of the coarsest level first.
            positions: ``(N, C)``.
            mask: ``(E, T)`` bool, False on padding, which nobody reads.
            shapes: Height and width of each level.

        Returns:
            New tokens and pixels.
        """
        norm = self.token_norms
        gathered = self.token_pixel_attention(tokens, pixels + positions, pixels)
        tokens = norm[0](tokens + self.token_scale * gathered)
        tokens = norm[1](tokens + self.token_attention(tokens, tokens, mask))
        tokens = norm[2](tokens + self.token_ffn(tokens))
        spread = self.pixel_token_attention(pixels + positions, tokens, mask)
        pixels = self.pixel_norm(pixels + self.pixel_scale * spread)
        return tokens, self.pixel_layer(pixels, positions, shapes)
