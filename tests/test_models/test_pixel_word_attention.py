import math

import numpy as np
import pytest
import torch

from nemo_mmseg.models.backbones.pixel_word_attention import PixelWordAttention


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def normalise(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def by_hand(module, x, words, length, activation=gelu):
    """The fusion of one map (N, C) with one expression, in numpy, head by head."""

    def norm(name, y):
        layer = getattr(module, name)
        y = normalise(y)
        if layer.weight is None:
            return y
        return y * layer.weight.detach().numpy() + layer.bias.detach().numpy()

    def linear(name, y):
        layer = getattr(module, name)
        return y @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()

    channels = x.shape[1]
    query = norm('query_norm', linear('query', x))
    key, value = linear('key', words[:length]), linear('value', words[:length])
    gathered = []
    for own in np.split(np.arange(channels), module.num_heads):
        score = query[:, own] @ key[:, own].T / math.sqrt(channels)
        weight = np.exp(score - score.max(1, keepdims=True))
        gathered.append(weight / weight.sum(1, keepdims=True) @ value[:, own])
    gathered = norm('out_norm', linear('out', np.concatenate(gathered, axis=1)))
    return activation(linear('mix', activation(linear('visual', x)) * gathered))


@pytest.mark.parametrize('heads', [1, 3])
def test_equals_the_equations(heads):
    torch.manual_seed(0)
    module = PixelWordAttention(12, 8, num_heads=heads).double()
    x, words = torch.randn(2, 15, 12).double(), torch.randn(2, 6, 8).double()
    mask = torch.arange(6) < torch.tensor([6, 3])[:, None]
    fused = module(x, words, mask).detach().numpy()
    for i, length in enumerate((6, 3)):
        expected = by_hand(module, x[i].numpy(), words[i].numpy(), length)
        np.testing.assert_allclose(fused[i], expected, rtol=1e-9, atol=1e-9)


def test_equals_the_equations_of_tris():
    torch.manual_seed(0)
    module = PixelWordAttention(12, 8, affine=True, activation=torch.relu).double()
    for norm in (module.query_norm, module.out_norm):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x, words = torch.randn(2, 15, 12).double(), torch.randn(2, 6, 8).double()
    fused = module(x, words, None).detach().numpy()
    for i in range(2):
        expected = by_hand(module, x[i].numpy(), words[i].numpy(), 6, lambda y: np.maximum(y, 0))
        np.testing.assert_allclose(fused[i], expected, rtol=1e-9, atol=1e-9)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    module = PixelWordAttention(4, 8)
    x, words = torch.randn(1, 9, 4), torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, True, False, False]])
    other = words.clone()
    other[:, 3:] = 100.0
    assert torch.equal(module(x, words, mask), module(x, other, mask))
    other[:, 2] = 100.0
    assert not torch.equal(module(x, words, mask), module(x, other, mask))


def test_bad_sizes():
    with pytest.raises(ValueError, match='10 channels do not divide into 4'):
        PixelWordAttention(10, 8, num_heads=4)
