"""Response maps spread over their objects by random walks that do not cross edges."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from nemo_mmseg.models.affinity.pixel_paths import affinity, pixel_paths, region_of


class RandomWalk:
    """Random walks on the pixels of one image, for any number of maps of it.

    A step leads to a pixel nearer than the radius, or nowhere; how likely, the edges between the
    two decide. The published code multiplies the dense matrix of all pairs of pixels with itself
    eight times. This takes the 256 steps one by one, on a matrix that holds the pairs of
    neighbours alone: N pixels take 69 N numbers instead of N^2, and 18,000 N multiplications for a
    map instead of 8 N^3 for an image.

    Args:
        edge: ``(h, w)``, 0 to 1.
        radius: In cells. Defaults to 5.
        beta: Power of the affinities. Defaults to 10.
        steps: Length of a walk. Defaults to 256.
    """

    def __init__(
        self, edge: np.ndarray, radius: int = 5, beta: float = 10, steps: int = 256
    ) -> None:
        self.steps = steps
        # In single precision, the rounding of so many steps would add up to 1e-4.
        edge = edge.astype(np.float64)
        self._inside = 1 - edge
        self._transition = _transition(edge, radius, beta)

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Spread several maps.

        Args:
            maps: ``(N, h, w)`` float32. Their values on edges are left out before.

        Returns:
            ``(N, h, w)`` float32.
        """
        spread = []
        for values in (maps * self._inside).reshape(len(maps), -1):
            if values.any():
                for _ in range(self.steps):
                    values = self._transition @ values
            spread.append(values)
        return np.stack(spread).reshape(maps.shape).astype(np.float32)


def _transition(edge: np.ndarray, radius: int, beta: float) -> sparse.dia_array:
    """Weights of the mean over its neighbours that a step puts in the place of each pixel."""
    height, width = edge.shape
    tensor = torch.from_numpy(edge)
    pairs = []
    total = torch.ones_like(tensor)  # a pixel and itself
    for path in pixel_paths(radius):
        region = region_of(path, height, width)
        weight = affinity(tensor, path, region).pow(beta)
        region.of(total).add_(weight)
        region.of(total, path.end).add_(weight)
        pairs.append((path.end, region, weight))
    # One diagonal a neighbour, by the column of its entries; in narrow maps, neighbours on both
    # sides share one. Each column of the published matrix is divided by its sum, and multiplied
    # from the left.
    diagonals = {0: 1 / total}
    for (y, x), region, weight in pairs:
        offset = y * width + x
        for one in (offset, -offset):
            diagonals.setdefault(one, torch.zeros_like(tensor))
        region.of(diagonals[offset], (y, x)).add_(weight / region.of(total))
        region.of(diagonals[-offset]).add_(weight / region.of(total, (y, x)))
    data = torch.stack(list(diagonals.values())).flatten(1).numpy()
    return sparse.dia_array((data, list(diagonals)), shape=(edge.size,) * 2)
