"""Attention with folded projections against attention in its ordinary order."""

import pytest
import torch

from nemo_mmseg.models.utils.few_token_attention import FewKeyAttention, FewQueryAttention

CHANNELS, HEADS = 12, 4


def ordinary(module, query, key, value, mask=None):
    """Project everything, then compare, head by head."""
    found = []
    size = 4 * CHANNELS // HEADS
    for head in range(HEADS):
        rows = slice(head * size, (head + 1) * size)
        q, k, v = (
            x @ layer.weight[rows].T + layer.bias[rows]
            for x, layer in ((query, module.query), (key, module.key), (value, module.value))
        )
        scores = q @ k.transpose(1, 2) / size**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], float('-inf'))
        found.append(scores.softmax(-1) @ v)
    return module.out(torch.cat(found, -1))


def make(kind):
    torch.manual_seed(0)
    module = kind(CHANNELS, HEADS).double()
    tokens, pixels, positions = (
        torch.randn(2, n, CHANNELS, dtype=torch.float64, requires_grad=True) for n in (5, 40, 40)
    )
    return module, tokens, pixels, positions


def compare(module, found, expected, *inputs):
    """Values, and gradients of inputs and parameters."""
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    wanted = [*inputs, *module.parameters()]
    one = torch.autograd.grad((found * weights).sum(), wanted, retain_graph=True)
    other = torch.autograd.grad((expected * weights).sum(), wanted)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def test_tokens_gather_pixels():
    module, tokens, pixels, positions = make(FewQueryAttention)
    key = pixels + positions
    found = module(tokens, key, pixels)
    compare(module, found, ordinary(module, tokens, key, pixels), tokens, pixels, positions)


@pytest.mark.parametrize('words', ['alone', 'with padding'])
def test_pixels_gather_tokens(words):
    module, tokens, pixels, _ = make(FewKeyAttention)
    mask = torch.ones(2, 5, dtype=torch.bool)
    if words == 'with padding':
        mask[0, 2:4] = False
    found = module(pixels, tokens, mask)
    compare(module, found, ordinary(module, pixels, tokens, tokens, mask), tokens, pixels)
    other = tokens.detach().clone()
    other[~mask] = 1e3
    torch.testing.assert_close(module(pixels, other, mask), found)
