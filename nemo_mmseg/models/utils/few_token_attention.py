"""Attention between many pixels and few tokens, in which no pixel is projected."""

from __future__ import annotations

from torch import Tensor, nn

LARGEST = 50000.0  # score; infinity in float16 would make softmax NaN


class FewTokenAttention(nn.Module):
    """Base of multi-head attention four times as wide as its input, for some tens of tokens.

    It is ordinary attention, computed in another order. The score of a pixel x and a token t is
    (Q x)(K t) = x (Q'K t): the token, of which there are few, goes through both projections. A
    pixel meets ``heads * tokens`` numbers instead of ``4 * channels`` projected ones, which is a
    fifth of the work for 25 tokens of 256 channels and eight heads.

    Args:
        channels: Channels of pixels and tokens.
        num_heads: Attention heads, whose number divides ``4 * channels``.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        width = 4 * channels
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.query = nn.Linear(channels, width)
        self.key = nn.Linear(channels, width)
        self.value = nn.Linear(channels, width)
        self.out = nn.Linear(width, channels)

    def heads(self, x: Tensor) -> Tensor:
        """``(E, T, heads * D)`` -> ``(E, heads, T, D)``."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def fold(self, tokens: Tensor, other: nn.Linear) -> tuple[Tensor, Tensor]:
        """Take projected tokens through the projection of the other side, backwards.

        Args:
            tokens: Projected, ``(E, T, heads * D)``.
            other: Projection of what the tokens are compared with.

        Returns:
            Vectors ``(E, heads * T, C)`` and constants ``(E, heads * T)``: the score of an x is its
            product with the vector, plus the constant.
        """
        tokens = self.heads(tokens) * self.scale
        weight = other.weight.unflatten(0, (self.num_heads, -1))
        bias = other.bias.unflatten(0, (self.num_heads, -1, 1))
        return (tokens @ weight).flatten(1, 2), (tokens @ bias).flatten(1)


class FewQueryAttention(FewTokenAttention):
    """Attention of tokens to pixels. Arguments as in :class:`FewTokenAttention`."""

    def forward(self, tokens: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Let tokens gather pixels.

        Args:
            tokens: ``(E, T, C)``.
            key: What pixels are known by, ``(E, N, C)``.
            value: What they say, ``(E, N, C)``.

        Returns:
            ``(E, T, C)``.
        """
        vectors, constants = self.fold(self.query(tokens), self.key)
        scores = vectors @ key.mT + constants[..., None]
        weights = scores.clamp(-LARGEST, LARGEST).softmax(dim=-1)
        gathered = (weights @ value).unflatten(1, (self.num_heads, -1))
        projection = self.value.weight.unflatten(0, (self.num_heads, -1)).mT
        gathered = (gathered @ projection).transpose(1, 2).flatten(2)
        return self.out(gathered + self.value.bias)


class FewKeyAttention(FewTokenAttention):
    """Attention of pixels, or tokens, to tokens. Arguments as in :class:`FewTokenAttention`."""

    def forward(self, query: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Let pixels gather tokens.

        Args:
            query: ``(E, N, C)``.
            tokens: ``(E, T, C)``.
            mask: ``(E, T)`` bool, False on tokens that nobody attends to.

        Returns:
            ``(E, N, C)``.
        """
        vectors, constants = self.fold(self.key(tokens), self.query)
        scores = query @ vectors.mT + constants[:, None]
        scores = scores.clamp(-LARGEST, LARGEST).unflatten(-1, (self.num_heads, -1))
        weights = scores.masked_fill(~mask[:, None, None], float('-inf')).softmax(dim=-1)
        projection = self.out.weight.T.unflatten(0, (self.num_heads, -1))
        said = self.heads(self.value(tokens)) @ projection
        return weights.flatten(-2) @ said.flatten(1, 2) + self.out.bias
