"""Deformable attention and its positions, against loops over single pixels."""

import math

import numpy as np
import pytest
import torch

from nemo_mmseg.models.utils.deformable_attention import (
    MultiScaleDeformableAttention,
    compiled_sampling,
    deformable_sampling,
)
from nemo_mmseg.models.utils.fpn_step import FPNStep
from nemo_mmseg.models.utils.positions import relative_sine_position_2d

SHAPES = [(2, 3), (4, 5), (7, 6)]


def read(pixels, x, y):
    """The value of a map (h, w, C) at x, y of 0..1; around the map everything is 0."""
    height, width = pixels.shape[:2]
    x, y = x * width - 0.5, y * height - 0.5
    left, top = math.floor(x), math.floor(y)
    total = np.zeros(pixels.shape[2])
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                share = (1 - abs(x - column)) * (1 - abs(y - row))
                total += share * pixels[row, column]
    return total


def sampling_by_loops(value, shapes, locations, weights):
    batch, _, heads, channels = value.shape
    starts = np.cumsum([0] + [height * width for height, width in shapes])
    result = np.zeros((batch, locations.shape[1], heads, channels))
    for b, q, head, level, point in np.ndindex(weights.shape):
        pixels = value[b, starts[level] : starts[level + 1], head].reshape(*shapes[level], channels)
        found = read(pixels, *locations[b, q, head, level, point])
        result[b, q, head] += weights[b, q, head, level, point] * found
    return result.reshape(batch, -1, heads * channels)


def sampling_case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    numbers = sum(height * width for height, width in SHAPES)
    value = torch.randn(2, numbers, 4, 5, generator=generator, dtype=dtype)
    # a fifth of the places lie outside of the maps
    locations = 1.4 * torch.rand(2, 9, 4, 3, 2, 2, generator=generator, dtype=dtype) - 0.2
    weights = torch.randn(2, 9, 4, 3, 2, generator=generator, dtype=dtype)
    return value, SHAPES, locations, weights


def test_sampling_is_bilinear_with_zeros_around():
    value, shapes, locations, weights = sampling_case()
    expected = sampling_by_loops(value.numpy(), shapes, locations.numpy(), weights.numpy())
    found = deformable_sampling(value, shapes, locations, weights)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_centres_of_pixels_and_edges_of_maps():
    value = torch.arange(1.0, 13).reshape(1, 12, 1, 1)
    places = torch.tensor([[0.5 / 4, 0.5 / 3], [3.5 / 4, 2.5 / 3], [1, 1], [2.5 / 4, 1 / 3]])
    locations = places.reshape(1, 4, 1, 1, 1, 2)
    found = deformable_sampling(value, [(3, 4)], locations, torch.ones(1, 4, 1, 1, 1))
    # a corner shares its pixel with three zeros; between two rows is their mean
    assert found.flatten().tolist() == pytest.approx([1, 12, 3, 5])


@pytest.mark.skipif(
    not torch.cuda.is_available() or compiled_sampling() is None,
    reason='needs a GPU, and mmcv with compiled functions',
)
def test_the_compiled_function_gives_the_same():
    value, shapes, *others = sampling_case(torch.float32)
    results = []
    for device in ('cpu', 'cuda'):
        leaves = [x.detach().to(device).requires_grad_() for x in (value, *others)]
        found = deformable_sampling(leaves[0], shapes, *leaves[1:])
        found.square().sum().backward()
        results.append([found.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_attention_is_a_softmax_over_places_around_each_pixel():
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(8, num_heads=2, num_levels=3).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    numbers = sum(height * width for height, width in SHAPES)
    query, value = torch.randn(2, 2, numbers, 8, dtype=torch.float64)
    with torch.no_grad():
        offsets = attention.sampling_offsets(query).numpy().reshape(2, numbers, 2, 3, 4, 2)
        scores = attention.attention_weights(query).numpy().reshape(2, numbers, 2, 12)
        values = attention.value_proj(value).numpy().reshape(2, numbers, 2, 4)
        found = attention(query, value, SHAPES)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    locations = np.empty_like(offsets)
    pixels = [(h, w, i, j) for h, w in SHAPES for i in range(h) for j in range(w)]
    for pixel, (height, width, i, j) in enumerate(pixels):
        for level, (h, w) in enumerate(SHAPES):
            offset = offsets[:, pixel, :, level]
            locations[:, pixel, :, level, :, 0] = (j + 0.5) / width + offset[..., 0] / w
            locations[:, pixel, :, level, :, 1] = (i + 0.5) / height + offset[..., 1] / h
    weights = weights.reshape(2, numbers, 2, 3, 4)
    gathered = sampling_by_loops(values, SHAPES, locations, weights)
    with torch.no_grad():
        expected = attention.output_proj(torch.from_numpy(gathered))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_attention_starts_with_a_star_of_places():
    attention = MultiScaleDeformableAttention(16)
    query = torch.randn(1, 1, 16)
    offsets = attention.sampling_offsets(query).reshape(8, 3, 4, 2)
    star = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, direction in enumerate(star):
        for point in range(4):
            expected = (point + 1) * torch.tensor(direction).float().expand(3, 2)
            torch.testing.assert_close(offsets[head, :, point], expected, rtol=1e-5, atol=1e-5)
    assert not attention.attention_weights(query).any()


@pytest.mark.parametrize('height, width', [(3, 5), (15, 15)])
def test_positions_are_sines_of_rows_then_of_columns(height, width):
    found = relative_sine_position_2d(height, width, channels_per_axis=6)
    expected = np.empty((12, height, width))
    for c, i, j in np.ndindex(expected.shape):
        place = (i + 1) / (height + 1e-6) if c < 6 else (j + 1) / (width + 1e-6)
        angle = 2 * math.pi * place / 10000 ** (2 * (c % 6 // 2) / 6)
        expected[c, i, j] = math.cos(angle) if c % 2 else math.sin(angle)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_pyramid_step_adds_the_enlarged_coarse_map():
    torch.manual_seed(0)
    step = FPNStep(3, 64)
    coarse, fine = torch.randn(2, 64, 3, 4), torch.randn(2, 3, 6, 8)
    # without the fine map, of which only the offset of its norm is left
    torch.nn.init.zeros_(step.lateral.conv.weight)
    torch.nn.init.constant_(step.lateral.norm.bias, 0.5)
    # the middle of the 3x3 convolution alone
    torch.nn.init.zeros_(step.output.conv.weight)
    step.output.conv.weight.data[:, :, 1, 1] = torch.eye(64)
    twice = torch.from_numpy(enlarged(coarse.numpy()))
    groups = (0.5 + twice).reshape(2, 32, -1)
    normed = (groups - groups.mean(-1, keepdim=True)) / groups.std(-1, keepdim=True, correction=0)
    expected = normed.reshape(2, 64, 6, 8).clamp(min=0)
    torch.testing.assert_close(step(coarse, fine).double(), expected, rtol=1e-4, atol=1e-4)
    assert step.lateral.conv.bias is None and step.output.conv.bias is None


def enlarged(maps):
    """Maps (B, C, h, w) at twice the size, bilinear, their border going on."""
    rows, columns = (np.arange(2 * side) / 2 - 0.25 for side in maps.shape[2:])
    rows, columns = (x.clip(0, n - 1) for x, n in zip((rows, columns), maps.shape[2:]))
    result = np.empty((*maps.shape[:2], len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            top, left = int(row), int(column)
            below, right = min(top + 1, maps.shape[2] - 1), min(left + 1, maps.shape[3] - 1)
            a, b = row - top, column - left
            result[:, :, i, j] = (1 - a) * (1 - b) * maps[:, :, top, left]
            result[:, :, i, j] += (1 - a) * b * maps[:, :, top, right]
            result[:, :, i, j] += a * (1 - b) * maps[:, :, below, left]
            result[:, :, i, j] += a * b * maps[:, :, below, right]
    return result
