"""OpenCV's cubic affine warp, also on the device where the maps are."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from .geometry import is_straight

CUBIC = -0.75  # the coefficient of the cubic kernel in OpenCV


def warp_cubic(maps: Tensor, matrix: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Interpolate maps at the places that a matrix gives for every pixel of a new image.

    ``cv2.warpAffine(..., flags=INTER_CUBIC | WARP_INVERSE_MAP, borderValue=0)``, by OpenCV where
    the maps are on the CPU. From a GPU nothing is moved, unless the matrix rotates; see
    :func:`resample_cubic`.

    Args:
        maps: ``(N, h, w)`` float32.
        matrix: ``(2, 3)``, from pixels of the new image to pixels of the maps.
        shape: Height and width of the new image.

    Returns:
        ``(N, *shape)`` on the same device; 0 outside of the maps.
    """
    if maps.device.type != 'cpu' and is_straight(matrix):
        return resample_cubic(maps, matrix, shape)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = shape[1], shape[0]
    host = maps.cpu().numpy()
    warped = [cv2.warpAffine(one, matrix, size, flags=flags, borderValue=0.0) for one in host]
    return torch.from_numpy(np.stack(warped)).to(maps.device)


def resample_cubic(maps: Tensor, matrix: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Interpolate as :func:`warp_cubic`, by a matrix that keeps rows rows, without OpenCV.

    One resampling along the rows and one along the columns. The values are OpenCV 5's up to
    rounding (5e-5 for noise); OpenCV 4 rounds the places to 1/32 of a pixel.
    """
    for dim, row in ((2, 0), (1, 1)):
        scale, shift = matrix[row][row], matrix[row][2]
        places, weights = _taps(scale * np.arange(shape[1 - row]) + shift, maps.shape[dim])
        places = torch.from_numpy(places).to(maps.device)
        weights = torch.from_numpy(weights).to(maps)
        if dim == 1:
            weights = weights[:, :, None]
        # a sum of four, and no product of matrices, which TF32 or autocast would round
        maps = sum(maps.index_select(dim, p) * w for p, w in zip(places, weights))
    return maps


def _taps(places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the four values that make each of n new ones, int64 ``(4, n)``, and float64 weights."""
    first = np.floor(places).astype(np.int64) - 1
    after = places - np.floor(places)
    far, before = after + 1, 1 - after
    a = CUBIC
    weights = [
        ((a * far - 5 * a) * far + 8 * a) * far - 4 * a,
        ((a + 2) * after - (a + 3)) * after**2 + 1,
        ((a + 2) * before - (a + 3)) * before**2 + 1,
    ]
    weights.append(1 - sum(weights))
    taken = first + np.arange(4)[:, None]
    inside = (taken >= 0) & (taken < size)
    return taken.clip(0, size - 1), np.stack(weights) * inside
