"""Gaussian filtering in many dimensions on the permutohedral lattice.

Adams, Baek and Davis, *Fast High-Dimensional Filtering Using the Permutohedral Lattice*,
Eurographics 2010. Every point gives its value to the d + 1 corners of the simplex that it lies in,
the corners are blurred along the d + 1 axes of the lattice, and every point reads from its corners.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


class PermutohedralLattice:
    """The sums ``sum_j exp(-|f_i - f_j|^2 / 2) v_j`` over all points, approximately.

    Making it costs about as much as ten filterings. It depends on the features alone, so all
    values of an image are filtered with one lattice.

    Args:
        features: ``(N, d)``, divided by the standard deviation of the Gaussian in each dimension.
    """

    def __init__(self, features: np.ndarray) -> None:
        corners, weights = _simplices(np.asarray(features, np.float64))
        num_points, num_corners = weights.shape
        vertices, blurs = _vertices(corners)
        rows = np.arange(0, weights.size + 1, num_corners, dtype=np.int32)
        shape = num_points, len(blurs[0])
        weights = weights.astype(np.float32).ravel()
        self._slice = sparse.csr_matrix((weights, vertices.ravel(), rows), shape)
        self._splat = self._slice.T.tocsr()
        self._blurs = blurs
        self._scale = np.float32(1 / (1 + 2.0 ** (1 - num_corners)))

    def filter(self, values: np.ndarray) -> np.ndarray:
        """Filter several values of each point.

        Args:
            values: ``(N, C)`` float32.

        Returns:
            ``(N, C)`` float32.
        """
        table = np.zeros((self._splat.shape[0] + 1, values.shape[1]), np.float32)
        # The last row stands for corners that no point lies at, and stays 0.
        table[:-1] = self._splat @ values
        for neighbours in self._blurs:
            around = table[neighbours[:, 0]]
            around += table[neighbours[:, 1]]
            around *= np.float32(0.5)
            table[:-1] += around
        return self._slice @ table[:-1] * self._scale


def _simplices(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the simplex around each point.

    Args:
        features: ``(N, d)``.

    Returns:
        Coordinates ``(N, d + 1, d)`` int64 of its corners, the last one left out as they sum to 0,
        and the barycentric weights ``(N, d + 1)`` of the point.
    """
    num_points, dim = features.shape
    scale = np.sqrt(2 / 3) * (dim + 1) / np.sqrt(np.arange(1, dim + 1) * np.arange(2, dim + 2))
    # Into the plane of d + 1 coordinates that sum to 0: along an orthogonal basis of it.
    basis = np.triu(np.ones((dim + 1, dim)))
    basis[np.arange(1, dim + 1), np.arange(dim)] = -np.arange(1, dim + 1)
    elevated = features * scale @ basis.T

    # The nearest point whose coordinates are all multiples of d + 1, and how far it is off the
    # plane: that many coordinates, those that were rounded furthest, go one multiple back.
    multiples = np.rint(elevated / (dim + 1)).astype(np.int64)
    rest = elevated - multiples * (dim + 1)
    order = np.argsort(-rest, axis=1, kind='stable')
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(dim + 1)[None], axis=1)
    rank += multiples.sum(axis=1, keepdims=True)
    shift = (rank < 0).astype(np.int64) - (rank > dim)
    rank += (dim + 1) * shift
    multiples += shift
    rest -= (dim + 1) * shift

    # Sorted by rank, differences of neighbouring coordinates are the weights.
    falling = np.empty_like(rest)
    np.put_along_axis(falling, rank, rest / (dim + 1), axis=1)
    weights = np.empty((num_points, dim + 1))
    weights[:, 1:] = (falling[:, :-1] - falling[:, 1:])[:, ::-1]
    weights[:, 0] = 1 - weights[:, 1:].sum(axis=1)

    origin = multiples[:, :dim] * (dim + 1)
    number = np.arange(dim + 1)
    # Corner k lies k steps along all axes, and d + 1 steps back along the k of the highest rank.
    back = number[:, None] > dim - number  # [corner, rank]
    steps = number[:, None] - (dim + 1) * back
    return origin[:, None] + steps[:, rank[:, :dim]].transpose(1, 0, 2), weights


def _vertices(corners: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Number the corners that occur, and find their neighbours.

    Args:
        corners: ``(N, d + 1, d)`` int64.

    Returns:
        Number of each corner ``(N, d + 1)`` int32, and for every axis the numbers ``(M, 2)`` int32
        of the two neighbours of the M corners; M where there is none.
    """
    dim = corners.shape[-1]
    # One integer for a corner, with room for neighbours: their order is that of the corners.
    low = corners.min(axis=(0, 1)) - dim - 1
    size = corners.max(axis=(0, 1)) + dim + 2 - low
    places = np.append(np.cumprod(size[:0:-1])[::-1], 1)
    codes, vertices = np.unique((corners - low) @ places, return_inverse=True)
    blurs = []
    for axis in range(dim + 1):
        step = np.ones(dim, np.int64)
        if axis < dim:
            step[axis] = -dim
        step = step @ places
        blurs.append(
            np.stack([_positions(codes, codes + step), _positions(codes, codes - step)], 1)
        )
    return vertices.reshape(corners.shape[:2]).astype(np.int32), blurs


def _positions(codes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where wanted codes are in a rising array, its length for those that are not."""
    found = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[found] == wanted, found, len(codes)).astype(np.int32)
