"""Pairs of neighbouring pixels, and the pixels between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

Offset = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class PixelPath:
    """The pixels between a pixel and one of its neighbours.

    Args:
        end: Where the neighbour lies, seen from the pixel.
        pixels: Where the pixels of the path lie; both ends are among them.
    """

    end: Offset
    pixels: tuple[Offset, ...]


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels whose paths begin in it."""

    top: int
    left: int
    height: int
    width: int

    def of(self, maps: Tensor, offset: Offset = (0, 0)) -> Tensor:
        """Return the part ``(..., height, width)`` of maps ``(..., H, W)``, moved by an offset."""
        top, left = self.top + offset[0], self.left + offset[1]
        return maps[..., top : top + self.height, left : left + self.width]


@cache
def pixel_paths(radius: int) -> tuple[PixelPath, ...]:
    """List the paths to half of the neighbours; the other half is their reverse.

    The neighbours are nearer than the radius. A path has the pixels of the rectangle between its
    ends that are less than a pixel away from the line between them.

    Args:
        radius: In pixels.

    Returns:
        The paths, the shortest first.
    """
    ends = [
        (y, x)
        for y in range(radius)
        for x in range(1 - radius, radius)
        if (y > 0 or x > 0) and y * y + x * x < radius * radius
    ]
    paths = [PixelPath(end, _pixels_between(*end)) for end in ends]
    return tuple(sorted(paths, key=lambda path: (len(path.pixels), path.end)))


def _pixels_between(y: int, x: int) -> tuple[Offset, ...]:
    columns = range(min(x, 0), max(x, 0) + 1)
    return tuple(
        (row, column)
        for row in range(y + 1)
        for column in columns
        if (x * row - y * column) ** 2 < y * y + x * x
    )


def common_region(radius: int, height: int, width: int) -> Region:
    """Return the pixels from which all paths stay inside the map, as IRN trains on them."""
    margin = radius - 1
    return Region(0, margin, height - margin, width - 2 * margin)


def region_of(path: PixelPath, height: int, width: int) -> Region:
    """Return the pixels from which one path stays inside the map."""
    y, x = path.end
    return Region(0, max(-x, 0), max(height - y, 0), max(width - abs(x), 0))


def affinity(edge: Tensor, path: PixelPath, region: Region) -> Tensor:
    """Compute how surely two pixels belong together: 1 minus the strongest edge between them.

    Args:
        edge: ``(..., H, W)``, 0 to 1.
        path: From one pixel to the other.
        region: The first pixels.

    Returns:
        ``(..., height, width)`` of the region.
    """
    return 1 - torch.stack([region.of(edge, pixel) for pixel in path.pixels]).max(dim=0).values
