"""Instances of an image, told apart by the centres that its pixels point to."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def find_centroids(displacement: np.ndarray, steps: int = 300) -> np.ndarray:
    """Follow the displacements from each pixel to the centre of its object.

    Args:
        displacement: ``(2, h, w)``: how many rows and columns away a pixel expects its centre.
        steps: How often a place is moved by the displacement at it, interpolated bilinearly.
            Defaults to 300, as published.

    Returns:
        Row and column of the centre of each pixel, ``(2, h, w)`` int64.
    """
    height, width = displacement.shape[1:]
    last = np.array([height - 1, width - 1])
    table = displacement.reshape(2, -1).T.astype(np.float64)
    places = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 2).astype(np.float64)
    moving = np.arange(len(places))
    for _ in range(steps):
        here = places[moving]
        moved = np.clip(here + _interpolate(table, here, width), 0, last)
        places[moving] = moved
        # A place that stays where it is has arrived.
        moving = moving[(moved != here).any(axis=1)]
        if not len(moving):
            break
    return np.rint(places).astype(np.int64).T.reshape(2, height, width)


def _interpolate(table: np.ndarray, places: np.ndarray, width: int) -> np.ndarray:
    """Interpolate ``(h * w, 2)`` values bilinearly at places ``(N, 2)`` inside the map."""
    low, high = np.floor(places).astype(np.int64), np.ceil(places).astype(np.int64)
    down, right = (places - low).T[:, :, None]
    above, below = low[:, 0] * width, high[:, 0] * width
    upper = table[above + low[:, 1]] * (1 - right) + table[above + high[:, 1]] * right
    lower = table[below + low[:, 1]] * (1 - right) + table[below + high[:, 1]] * right
    return upper * (1 - down) + lower * down


def group_centroids(
    centroids: np.ndarray, displacement: np.ndarray, reach: float = 2.5
) -> np.ndarray:
    """Tell which pixels have the same centre.

    Centres are the same that lie in one connected area of short displacements. The pixels whose
    centre lies in no such area are one instance together.

    Args:
        centroids: What :func:`find_centroids` returned.
        displacement: ``(2, h, w)``.
        reach: Displacements shorter than this are short. Defaults to 2.5 cells, as published.

    Returns:
        Number of each pixel's instance from 0, ``(h, w)`` int64.
    """
    areas, _ = ndimage.label(np.hypot(*displacement) < reach)
    _, numbers = np.unique(areas[tuple(centroids)], return_inverse=True)
    return numbers.reshape(areas.shape)
