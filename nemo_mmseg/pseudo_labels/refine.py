"""Response maps refined to masks by the edges and displacements that IRN's network predicts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from .instances import find_centroids, group_centroids
from .random_walk import RandomWalk

# An image has as many pixels along a side as the maps of the network, times this.
STRIDE = 4


@dataclass(frozen=True)
class RefineSettings:
    """How a response map becomes a mask.

    The defaults are those of TRIS but for the last two, which mend what its code does otherwise
    than it says; :data:`PUBLISHED` has them all.

    Args:
        centroid_steps: See :func:`~.instances.find_centroids`.
        reach: See :func:`~.instances.group_centroids`.
        radius: Of the random walk, in cells.
        beta: Power of its affinities.
        walk_steps: Its length.
        background: A pixel is background where no instance reaches this share of the maximum.
        min_fragment: Connected parts of a mask that are smaller are fragments; share of the image.
        keep_fragments: Whether fragments stay in the mask, with a score of 0.
        fill_empty: Whether the mask of a map without a positive value is the whole image; otherwise
            it is empty.

    Raises:
        ValueError: ``min_fragment`` is no share.
    """

    centroid_steps: int = 300
    reach: float = 2.5
    radius: int = 5
    beta: float = 10
    walk_steps: int = 256
    background: float = 0.25
    min_fragment: float = 0.01
    keep_fragments: bool = False
    fill_empty: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_fragment < 1:
            raise ValueError(f'min_fragment must be from 0 to below 1, not {self.min_fragment}')


PUBLISHED = RefineSettings(keep_fragments=True, fill_empty=True)


@dataclass(frozen=True)
class Parts:
    """The connected parts that make up a mask.

    Args:
        masks: ``(N, H, W)`` bool.
        scores: ``(N,)`` float32: the strongest response on each, as a share of the strongest in the
            image. 0 for fragments, NaN if there was no response.
    """

    masks: np.ndarray
    scores: np.ndarray

    @property
    def union(self) -> np.ndarray:
        """The mask, ``(H, W)`` uint8."""
        return self.masks.any(axis=0).astype(np.uint8)


class Refiner:
    """Refines the response maps of all objects of an image.

    Args:
        edge: ``(h, w)`` float32, 0 to 1: see :meth:`EdgeDisplacementNet.predict`.
        displacement: ``(2, h, w)`` float32.
        settings: Defaults to the mended ones.
    """

    def __init__(
        self,
        edge: np.ndarray,
        displacement: np.ndarray,
        settings: RefineSettings | None = None,
    ) -> None:
        self.settings = settings or RefineSettings()
        self.edge = edge
        self.displacement = displacement

    @cached_property
    def centroids(self) -> np.ndarray:
        """Row and column of the centre that each cell belongs to, ``(2, h, w)``."""
        return find_centroids(self.displacement, self.settings.centroid_steps)

    @cached_property
    def instances(self) -> np.ndarray:
        """Number of the instance that each cell belongs to, ``(h, w)``."""
        return group_centroids(self.centroids, self.displacement, self.settings.reach)

    @cached_property
    def _walk(self) -> RandomWalk:
        settings = self.settings
        return RandomWalk(self.edge, settings.radius, settings.beta, settings.walk_steps)

    def spread(self, response: np.ndarray) -> np.ndarray:
        """Split a map by instances and let each part spread.

        Args:
            response: ``(H, W)`` float32, 0 to 1.

        Returns:
            ``(instances, h, w)`` float32.
        """
        tensor = torch.from_numpy(response)[None, None]
        small = F.interpolate(tensor, self.edge.shape, mode='bilinear', align_corners=True)
        numbers = np.arange(self.instances.max() + 1)[:, None, None]
        return self._walk(small[0].numpy() * (self.instances == numbers))

    def upsample(self, spread: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Enlarge spread maps to the image, and divide them by the maximum over all.

        Args:
            spread: ``(N, h, w)`` float32.
            shape: Height and width of the image.

        Returns:
            ``(N, H, W)`` float32; NaN if all values are 0.
        """
        tensor = torch.from_numpy(spread)[None]
        large = F.interpolate(tensor, scale_factor=STRIDE, mode='bilinear', align_corners=False)
        large = large[0, :, : shape[0], : shape[1]]
        return (large / large.max()).numpy()

    def parts(self, response: np.ndarray) -> Parts:
        """Refine the response map of an object.

        Args:
            response: ``(H, W)`` float32, 0 to 1, at the size of the image.

        Returns:
            The connected parts of its mask, instance by instance.
        """
        shape = response.shape
        spread = self.spread(response)
        # Parts without a response are nowhere above the background.
        spread = spread[spread.any(axis=(1, 2))]
        if not len(spread):
            return self._without_response(shape)
        scores = self.upsample(spread, shape)
        best = scores.argmax(axis=0)
        above = scores.max(axis=0) > self.settings.background
        found = [
            part
            for number, score in enumerate(scores)
            for part in self._connected(above & (best == number), score)
        ]
        masks = np.array([mask for mask, _ in found], bool).reshape(-1, *shape)
        return Parts(masks, np.array([highest for _, highest in found], np.float32))

    def _without_response(self, shape: tuple[int, int]) -> Parts:
        count = int(self.settings.fill_empty)
        return Parts(np.ones((count, *shape), bool), np.full(count, np.nan, np.float32))

    def _connected(self, mask: np.ndarray, score: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Return the connected parts of an instance with their scores."""
        labels, count = ndimage.label(mask)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        highest = ndimage.maximum(score, labels, np.arange(1, count + 1))
        parts = []
        for number, (area, high) in enumerate(zip(areas, highest), start=1):
            fragment = area < self.settings.min_fragment * mask.size
            if not fragment or self.settings.keep_fragments:
                parts.append((labels == number, 0.0 if fragment else high))
        return parts
