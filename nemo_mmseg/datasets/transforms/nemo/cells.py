"""How the cells of a mosaic are filled: from image files, or from a tile store."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from mmcv.image.geometric import cv2_interp_codes

from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.negatives.tile_store import TileSpec, open_store
from nemo_mmseg.utils.images import read_image

from .grid import MosaicGrid


@dataclass(frozen=True)
class Fill:
    """How images become cells.

    Args:
        fit: How negatives fill their cells: ``'stretch'``, as published, or ``'crop'``, cut to the
            cell's aspect at a random place. The target's own image is always stretched, since its
            referent must not be cut.
        blur: Standard deviation of a Gaussian over negatives, as a share of the shorter side of the
            cell, 0 to 1. A strong one, such as 0.1, leaves of the augmentation only the target's
            small scale (the paper's ablation).
        interpolation: Filter of the resize; ``'bilinear'`` as published.
    """

    fit: str = 'stretch'
    blur: float = 0.0
    interpolation: str = 'bilinear'

    def __post_init__(self) -> None:
        choices = self.fit in ('stretch', 'crop') and self.interpolation in cv2_interp_codes
        if not (choices and 0 <= self.blur <= 1):
            raise ValueError(f"{self}: fit='stretch' or 'crop', blur 0 to 1, mmcv's interpolation")

    @property
    def crops(self) -> bool:
        """Whether negatives are cut at a random place."""
        return self.fit == 'crop'

    def resize(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        """Stretch an image (H, W, 3) to a cell (height, width, 3)."""
        if image.shape[:2] == (height, width):
            return image
        return cv2.resize(
            image, (width, height), interpolation=cv2_interp_codes[self.interpolation]
        )

    def negative(
        self, image: np.ndarray, height: int, width: int, place: float | None
    ) -> np.ndarray:
        """Make a cell of a negative.

        Args:
            image: (H, W, 3) uint8.
            height: Of the cell, in pixels.
            width: Of the cell, in pixels.
            place: Where it is cropped, in [0, 1); None stretches it.
        """
        if place is not None:
            image = crop_to_aspect(image, height, width, place)
        image = self.resize(image, height, width)
        if self.blur:
            image = cv2.GaussianBlur(image, (0, 0), self.blur * min(height, width))
        return image


def crop_to_aspect(image: np.ndarray, height: int, width: int, place: float) -> np.ndarray:
    """Cut the largest part of an image that has the aspect of a cell.

    Args:
        image: (H, W, 3).
        height: Of the cell, in pixels.
        width: Of the cell, in pixels.
        place: Where along the longer side, in [0, 1): 0 is the left or top end.

    Returns:
        A view of the image.
    """
    full_height, full_width = image.shape[:2]
    part_height = max(1, min(full_height, round(full_width * height / width)))
    part_width = max(1, min(full_width, round(full_height * width / height)))
    top = int(place * (full_height - part_height + 1))
    left = int(place * (full_width - part_width + 1))
    return image[top : top + part_height, left : left + part_width]


class ImageReader:
    """Reads images for cells, from files or from a tile store.

    Args:
        tiles: The tile store; None reads files.
        images: Folder of the negatives; None where they are the data set's own images. A store of
            such a folder does not have the targets, which are then read from their files.
    """

    def __init__(self, tiles: TileSpec | None, images: str | None) -> None:
        self.tiles = tiles
        self.images = images

    def target(self, results: dict) -> np.ndarray:
        """Read the target's image, or its tile.

        Args:
            results: The item.

        Returns:
            (H, W, 3) uint8, BGR.

        Raises:
            ValueError: Its size is not the annotated one.
        """
        path, shape = results['img_path'], (results['height'], results['width'])
        if self.tiles is None or self.images is not None:
            return read_image(path, *shape)
        store = open_store(self.tiles, results['pool'])
        row = store.row_of(results['pool'].name_of(path))
        if store.shape_of(row) != shape:
            raise ValueError(
                f'{path} has height and width {store.shape_of(row)}, annotated as {shape}'
            )
        return store.read(row)

    def negative(self, pool: ImagePool, name: str) -> np.ndarray:
        """Read a negative, or its tile.

        Args:
            pool: All images that negatives are drawn from.
            name: File name in the pool.

        Returns:
            (H, W, 3) uint8, BGR.
        """
        if self.tiles is None:
            return read_image(pool.path_of(name))
        store = open_store(self.tiles, pool)
        return store.read(store.row_of(name))


def tile_spec(tiles: dict, grid: MosaicGrid, fill: Fill) -> TileSpec:
    """Make the spec of the store that has a mosaic's cells.

    Args:
        tiles: ``path``, and ``encoding`` if it is not ``'raw'``.
        grid: Of the mosaic.
        fill: Of the mosaic.

    Raises:
        ValueError: Cells differ in size, or are cut from larger images.
    """
    sizes = grid.cell_sizes
    if len(sizes) != 1 or fill.crops:
        raise ValueError(
            f"tiles={tiles} needs cells of one size and fit='stretch'; here cells have the sizes "
            f'{sorted(sizes) or "any"} and fit={fill.fit!r}'
        )
    height, width = sizes.pop()
    return TileSpec(**tiles, height=height, width=width, interpolation=fill.interpolation)
