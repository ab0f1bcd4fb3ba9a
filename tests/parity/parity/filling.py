"""The weights and images of the cases, which are drawn by a rule and not stored.

The cases come with a file ``fill.py`` that draws them. This is the same rule, for cases that are
kept without it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def draw(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Values of one tensor, by its published name.

    Args:
        name: Published name; with the seed it decides on the random numbers.
        shape: Its shape.
        seed: Seed of the case.

    Returns:
        float32 array. Tensors of two and more dimensions have variance 1 / (product of all
        dimensions but the first). Variances of normalisations lie above 1, other single numbers and
        the gains of normalisations around 1, all remaining vectors around 0.
    """
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = generator.standard_normal(tuple(shape)).astype(np.float32)
    if name.endswith('running_var'):
        return np.float32(1) + np.float32(0.1) * np.abs(normal)
    if len(shape) > 1:
        return normal / np.float32(math.sqrt(math.prod(shape[1:])))
    if len(shape) == 0 or name.endswith('weight'):
        return np.asarray(np.float32(1) + np.float32(0.1) * normal)
    return np.float32(0.05) * normal


def fill_state_dict(state_dict: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The same names and shapes; what is not of integers is drawn."""
    return {
        name: torch.from_numpy(draw(name, tensor.shape, seed)).to(tensor.dtype)
        if tensor.is_floating_point() and tensor.numel()
        else tensor.clone()
        for name, tensor in state_dict.items()
    }


def make_image(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Normalised images (batch, 3, height, width): a plane wave with noise in each channel."""
    generator = np.random.default_rng([seed, batch, height, width])
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    channels = []
    for _ in range(3 * batch):
        along_x, along_y, phase = (generator.uniform(*r) for r in ((0.01, 0.2),) * 2 + ((0, 6.28),))
        channels.append(np.sin(x * along_x + y * along_y + phase))
    image = np.stack(channels).reshape(batch, 3, height, width)
    image = image + 0.3 * generator.standard_normal(image.shape)
    return torch.from_numpy(image.astype(np.float32))
