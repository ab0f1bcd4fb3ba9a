"""Every pixel gathers the words it is about."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def instance_norm(x: Tensor) -> Tensor:
    """Give every channel of every row mean 0 and variance 1 over its pixels, ``(E, N, C)``."""
    return F.instance_norm(x.transpose(1, 2)).transpose(1, 2)


class PixelWordAttention(nn.Module):
    """Pixel-word attention module (PWAM) of LAVT.

    Pixels attend to words; what they gather multiplies what they show. The map of gathered words is
    normalised over the pixels, so that only what differs from place to place remains of the
    language. There is no residual connection.

    Yang et al., *LAVT: Language-aware vision transformer for referring image segmentation*, 2022,
    equations 1 to 6.

    Args:
        channels: Channels of the pixels, C.
        word_channels: Size of a word feature, Cw.
        num_heads: Attention heads.
        dropout: Dropout after the two projections that end in a GELU.
    """

    def __init__(
        self, channels: int, word_channels: int, num_heads: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f'{channels} channels do not divide into {num_heads} fusion heads')
        self.num_heads = num_heads
        self.visual = nn.Linear(channels, channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(word_channels, channels)
        self.value = nn.Linear(word_channels, channels)
        self.out = nn.Linear(channels, channels)
        self.mix = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Fuse E maps with E expressions.

        Args:
            x: Pixels ``(E, N, C)``.
            words: Word features ``(E, T, Cw)``.
            mask: ``(E, T)`` bool, True on real tokens; an expression has at least one.

        Returns:
            Pixels ``(E, N, C)``.
        """

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        query, key, value = instance_norm(self.query(x)), self.key(words), self.value(words)
        gathered = F.scaled_dot_product_attention(
            heads(query),
            heads(key),
            heads(value),
            attn_mask=mask[:, None, None],
            # all channels, also with several heads
            scale=x.shape[-1] ** -0.5,
        )
        gathered = instance_norm(self.out(gathered.transpose(1, 2).flatten(2)))
        mixed = self.dropout(F.gelu(self.visual(x))) * gathered
        return self.dropout(F.gelu(self.mix(mixed)))
