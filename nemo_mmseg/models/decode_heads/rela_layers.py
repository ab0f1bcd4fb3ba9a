"""The layers of ReLA's decoder: regions look at pixels, at words and at each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemo_mmseg.models.utils.layers import mlp


class RegionLayer(nn.Module):
    """Layer of ReLA's decoder; every step has a residual connection and then a norm.

    The regions look at the pixels where their own masks lie (region-image attention), the first
    layer's at the words (region-language attention), and all at each other (region-region
    attention).

    Args:
        channels: Channels of regions and pixels.
        num_heads: Attention heads.
        feedforward_channels: Hidden size.
        word_channels: Size of a word feature; None for a layer that does not read the words.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        feedforward_channels: int,
        word_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.image_attention = attention(channels, num_heads)
        self.language = None
        if word_channels is not None:
            self.language = LanguageAttention(channels, num_heads, word_channels)
        self.region_attention = attention(channels, num_heads)
        self.ffn = mlp(channels, feedforward_channels, channels)
        for layer in (self.ffn[0], self.ffn[2]):
            nn.init.xavier_uniform_(layer.weight)
        self.image_norm, self.region_norm, self.ffn_norm = (
            nn.LayerNorm(channels) for _ in range(3)
        )

    def forward(
        self,
        regions: Tensor,
        place: Tensor,
        pixels: Tensor,
        position: Tensor,
        forbidden: Tensor,
        words: Tensor,
    ) -> Tensor:
        """Update the regions.

        Args:
            regions: ``(E, R, C)``.
            place: Learned position code of the regions ``(R, C)``.
            pixels: Of one level, ``(E, N, C)``.
            position: Position code of these pixels ``(N, C)``.
            forbidden: ``(E, R, N)`` bool, True where a region must not look. One that must not look
                anywhere looks everywhere.
            words: Word features ``(E, T, Cw)``.

        Returns:
            ``(E, R, C)``.
        """
        forbidden = forbidden & ~forbidden.all(dim=-1, keepdim=True)
        forbidden = forbidden.repeat_interleave(self.image_attention.num_heads, dim=0)
        found = self.image_attention(
            regions + place, pixels + position, pixels, attn_mask=forbidden, need_weights=False
        )[0]
        regions = self.image_norm(regions + found)
        if self.language is not None:
            regions = self.language(regions, words)
        query = regions + place
        found = self.region_attention(query, query, regions, need_weights=False)[0]
        regions = self.region_norm(regions + found)
        return self.ffn_norm(regions + self.ffn(regions))


class LanguageAttention(nn.Module):
    """Attention of regions to words, of which a learned share, at most a tenth, is added.

    As published there is no mask: padding is read, too, and what BERT makes of it is part of what
    the network has learned.
    """

    def __init__(self, channels: int, num_heads: int, word_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(word_channels, channels, bias=False)
        nn.init.zeros_(self.proj.weight)
        self.attention = attention(channels, num_heads)
        self.norm = nn.LayerNorm(channels)
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, regions: Tensor, words: Tensor) -> Tensor:
        """Add to regions ``(E, R, C)`` what they find in words ``(E, T, Cw)``."""
        words = self.proj(words)
        found = self.attention(regions, words, words, need_weights=False)[0]
        return regions + 0.1 * self.weight.sigmoid() * self.norm(regions + found)


def attention(channels: int, num_heads: int) -> nn.MultiheadAttention:
    """Build multi-head attention with the published initial values."""
    layer = nn.MultiheadAttention(channels, num_heads, batch_first=True)
    nn.init.xavier_uniform_(layer.out_proj.weight)
    return layer
