"""Every pixel gathers the words it is about."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


class PixelNorm(nn.InstanceNorm1d):
    """Give every channel of every row mean 0 and variance 1 over its pixels, ``(E, N, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the channels."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class PixelWordAttention(nn.Module):
    """Pixel-word attention module (PWAM) of LAVT.

    Pixels attend to words; what they gather multiplies what they show. The map of gathered words is
    normalised over the pixels, so that only what differs from place to place remains of the
    language. There is no residual connection.

    Yang et al., *LAVT: Language-aware vision transformer for referring image segmentation*, 2022,
    equations 1 to 6. The second stage of TRIS (Liu et al., 2023) has it with norms that learn and
    with ReLU.

    Args:
        channels: Channels of the pixels, C.
        word_channels: Size of a word feature, Cw.
        num_heads: Attention heads.
        dropout: Dropout after the two projections that end in an activation.
        affine: Whether the two norms have a gain and an offset for each channel.
        activation: Of the two projections of pixels.
    """

    def __init__(
        self,
        channels: int,
        word_channels: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        affine: bool = False,
        activation: Callable[[Tensor], Tensor] = F.gelu,
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
        self.query_norm = PixelNorm(channels, affine=affine)
        self.out_norm = PixelNorm(channels, affine=affine)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation

    def forward(self, x: Tensor, words: Tensor, mask: Tensor | None) -> Tensor:
        """Fuse E maps with E expressions.

        Args:
            x: Pixels ``(E, N, C)``.
            words: Word features ``(E, T, Cw)``.
            mask: ``(E, T)`` bool, True on real tokens, of which an expression has at least one;
                None attends to the padding, too.

        Returns:
            Pixels ``(E, N, C)``.
        """

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        query, key, value = self.query_norm(self.query(x)), self.key(words), self.value(words)
        gathered = F.scaled_dot_product_attention(
            heads(query),
            heads(key),
            heads(value),
            attn_mask=None if mask is None else mask[:, None, None],
            # all channels, also with several heads
            scale=x.shape[-1] ** -0.5,
        )
        gathered = self.out_norm(self.out(gathered.transpose(1, 2).flatten(2)))
        mixed = self.dropout(self.activation(self.visual(x))) * gathered
        return self.dropout(self.activation(self.mix(mixed)))
