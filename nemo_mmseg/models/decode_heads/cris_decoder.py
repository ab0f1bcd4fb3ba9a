"""CRIS's cross-modal decoder: pixels attend to pixels, then to words."""

from __future__ import annotations

from torch import Tensor, nn

from ..utils import sine_position_1d, sine_position_2d


class CRISDecoderLayer(nn.Module):
    """Pre-norm decoder layer; each attention's result goes through a norm of its own.

    Args:
        channels: Channels of the pixels.
        word_channels: Size of a word feature.
        num_heads: Attention heads.
        feedforward_channels: Hidden size of the last part.
        dropout: Dropout of attention weights, hidden layer and all three results.
    """

    def __init__(
        self,
        channels: int,
        word_channels: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(
            channels, num_heads, dropout=dropout, batch_first=True
        )
        self.cross_attn = nn.MultiheadAttention(
            channels,
            num_heads,
            dropout=dropout,
            kdim=word_channels,
            vdim=word_channels,
            batch_first=True,
        )
        self.ffn = nn.Sequential(
            nn.Linear(channels, feedforward_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.LayerNorm(feedforward_channels),
            nn.Linear(feedforward_channels, channels),
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.self_attn_norm, self.cross_attn_norm = (nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, pixels: Tensor, words: Tensor, keys: Tensor, position: Tensor, padding: Tensor
    ) -> Tensor:
        """One layer.

        Args:
            pixels: (E, P, channels).
            words: Word features (E, T, word_channels), the values of the attention.
            keys: The same with their position code, the keys.
            position: Position code of the pixels (P, channels).
            padding: (E, T) bool, True on padding.

        Returns:
            (E, P, channels).
        """
        x = self.norm1(pixels)
        query = x + position
        x = self.self_attn(query, query, x, need_weights=False)[0]
        pixels = pixels + self.dropout(self.self_attn_norm(x))
        query = self.norm2(pixels) + position
        x = self.cross_attn(query, keys, words, key_padding_mask=padding, need_weights=False)[0]
        pixels = pixels + self.dropout(self.cross_attn_norm(x))
        return pixels + self.dropout(self.ffn(self.norm3(pixels)))


class CRISDecoder(nn.Module):
    """Stack of :class:`CRISDecoderLayer` with fixed position codes.

    Args:
        channels: Channels of the pixels; a multiple of four.
        word_channels: Size of a word feature; even.
        num_layers: Number of layers.
        num_heads: Attention heads.
        feedforward_channels: Hidden size of a layer.
        dropout: Dropout probability.
    """

    def __init__(
        self,
        channels: int,
        word_channels: int,
        num_layers: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CRISDecoderLayer(channels, word_channels, num_heads, feedforward_channels, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Decode E maps.

        Args:
            x: (E, channels, h, w), of any shape.
            words: (E, T, word_channels).
            mask: (E, T) bool, True on real tokens.

        Returns:
            (E, channels, h, w).
        """
        height, width = x.shape[-2:]
        pixels = x.flatten(2).transpose(1, 2)
        position = sine_position_2d(height, width, pixels.shape[-1], x.device).to(x.dtype)
        keys = words + sine_position_1d(*words.shape[1:], x.device).to(words.dtype)
        for layer in self.layers:
            pixels = layer(pixels, words, keys, position, ~mask)
        return self.norm(pixels).transpose(1, 2).unflatten(2, (height, width))
