"""How the cells of a mosaic are filled: from image files, or from a tile store."""

from __future__ import annotations

import io
import os.path as osp
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.fileio import get
from PIL import Image

from nemo_mmseg.datasets.transforms.loading import read_image
from nemo_mmseg.mining.requirements import WantedStore
from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.negatives.pool import ImagePool, folder_pool
from nemo_mmseg.negatives.tile_store import TileSettings, open_store

from ..geometry import INTERPOLATIONS
from .grid import MosaicGrid
from .schedule import is_number

STORE_KEYS = ('path', 'encoding', 'quality', 'size', 'resize', 'target')
# By how much OpenCV's decoder can shrink a JPEG file.
_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}


def read_reduced(path: str, height: int, width: int) -> np.ndarray:
    """Decode a JPEG file at the smallest of 1/1, 1/2, 1/4 and 1/8 that still covers a cell.

    The decoder averages the pixels that it does not return, so a resize after it aliases less than
    one from the full image does.

    Args:
        path: The file. Other formats are decoded at full size.
        height: Of the cell, in pixels.
        width: Of the cell, in pixels.

    Returns:
        The image (h, w, 3) uint8, BGR, no side shorter than the longer one of the cell, if the
        file's is not.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no image.
    """
    content = get(path)
    try:
        with Image.open(io.BytesIO(content)) as image:  # reads the header alone
            # The shorter side, because a camera's orientation can swap them.
            times = min(image.size) // max(height, width) if image.format == 'JPEG' else 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        times = 1  # OpenCV may know it, or says what is wrong
    flag = next((flag for by, flag in _REDUCED.items() if by <= times), None)
    image = None if flag is None else cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    return read_image(path) if image is None else image


class MosaicImages:
    """Gives :class:`NeMoMosaic` the content of its cells, at their size.

    Args:
        layout: Of the mosaic.
        interpolation: See :class:`NeMoMosaic`.
        negative_fit: See :class:`NeMoMosaic`.
        negative_blur: See :class:`NeMoMosaic`.
        negative_decode: See :class:`NeMoMosaic`.
        store: The tile store that takes the place of the image files. It is made by
            ``tools/misc/make_tile_store.py``, ``tools/mine_negatives.py`` or
            :class:`NegativeMiningHook` where it is missing. dict of

            - ``path``: the file;
            - ``encoding``: ``'raw'``, the same pixels as without store, or ``'jpeg'``, a fifth of
              the bytes (``docs/performance.md`` has the PSNR). Defaults to ``'raw'``;
            - ``quality``: of JPEG tiles, 1 to 100. Defaults to 92;
            - ``size``: height and width of the tiles. Defaults to those of the largest equal cell;
            - ``resize``: whether cells of another size than the tiles (other grids, moving lines)
              are resized from them; they are refused otherwise. Defaults to False;
            - ``target``: whether the item's own image is read from the store, too; where negatives
              come from a folder, the path of a store of the data set's own images. Defaults to
              False: it is decoded.
        images: Folder of the negatives; None where they are the data set's own images.

    Raises:
        ValueError: Options that make no sense or contradict one another.
    """

    def __init__(
        self,
        layout: MosaicGrid,
        interpolation: str = 'bilinear',
        negative_fit: str = 'stretch',
        negative_blur: float = 0.0,
        negative_decode: str = 'full',
        store: dict | None = None,
        images: str | None = None,
    ) -> None:
        choices = dict(
            interpolation=(interpolation, tuple(INTERPOLATIONS)),
            negative_fit=(negative_fit, ('stretch', 'crop')),
            negative_decode=(negative_decode, ('full', 'reduced')),
        )
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise ValueError(f'{name}={value!r} is none of {allowed}')
        if not is_number(negative_blur) or not 0 <= negative_blur <= 1:
            raise ValueError(f'negative_blur={negative_blur} must be a share of the cell')
        self.settings = dict(
            negative_fit=negative_fit,
            negative_blur=negative_blur,
            interpolation=interpolation,
            store=None if store is None else _checked(store),
            negative_decode=negative_decode,
        )
        self.images = images
        self.crops = negative_fit == 'crop'
        self._blur, self._reduces = negative_blur, negative_decode == 'reduced'
        self._filter = INTERPOLATIONS[interpolation]
        self._path = self._target_path = self._tiles = None
        if store is not None:
            self._use_store(layout, **store)

    def _use_store(
        self,
        layout: MosaicGrid,
        path: str,
        encoding: str = 'raw',
        quality: int | None = None,
        size: tuple[int, int] | None = None,
        resize: bool = False,
        target: bool | str = False,
    ) -> None:
        if self.crops:
            raise ValueError(
                "a store holds whole images at the size of a cell: negative_fit='crop' would have "
                "to enlarge parts of them. Use negative_fit='stretch', or no store"
            )
        if self._reduces:
            raise ValueError("negative_decode='reduced' is for mosaics without store")
        height, width = layout.largest_equal_cell if size is None else size
        if not resize and layout.cell_sizes != {(height, width)}:
            cells = layout.cell_sizes
            found = 'any size' if cells is None else ', '.join(f'{h}x{w}' for h, w in sorted(cells))
            raise ValueError(
                f'the store has tiles of {height}x{width} pixels, but there are cells of {found}: '
                'store=dict(..., resize=True) resizes them, at the cost in docs/performance.md'
            )
        if encoding == 'jpeg':
            quality = 92 if quality is None else int(quality)
        self._tiles = TileSettings(
            int(height), int(width), self.settings['interpolation'], encoding, quality
        )
        self._path, self._target_path = str(path), (str(path) if target is True else target or None)
        if self.images is not None and self._target_path == self._path:
            raise ValueError(
                'the store of a folder of negatives does not have the targets: '
                "store=dict(..., target='...') names a second one, of the data set's own images"
            )

    def stores(self, own: ImagePool) -> list[WantedStore]:
        """The stores that are read for a data set.

        Args:
            own: Pool of the data set.
        """
        pools = {}
        if self._path is not None:
            pools[self._path] = self._source(own)
        if self._target_path is not None:
            pools[self._target_path] = own
        return [WantedStore(path, pool, self._tiles) for path, pool in pools.items()]

    def _source(self, own: ImagePool) -> ImagePool:
        """All images that negatives are drawn from, those of a leak guard's action included."""
        return own if self.images is None else folder_pool(self.images)

    def target(self, results: dict, height: int, width: int) -> np.ndarray:
        """The item's own image.

        Args:
            results: The item.
            height: Of the cell, in pixels.
            width: Of the cell, in pixels.

        Returns:
            The content of the cell (height, width, 3) uint8, BGR.
        """
        shape = results['height'], results['width']
        if self._target_path is None:
            return self._fitted(read_image(results['img_path'], *shape), height, width)
        store = open_store(self._target_path, results['pool'], self._tiles)
        row = store.row_of(osp.basename(results['img_path']))
        if store.shape_of(row) != shape:
            raise ValueError(
                f'{results["img_path"]} is {store.shape_of(row)[::-1]} pixels (width, height), '
                f'annotated as {shape[::-1]}'
            )
        return self._fitted(store.read(row), height, width)

    def negative(
        self,
        pool: ImagePool,
        name: str,
        own: ImagePool,
        height: int,
        width: int,
        place: float | None = None,
    ) -> np.ndarray:
        """A negative.

        Args:
            pool: The images from which negatives are drawn.
            name: File name in the pool.
            own: Pool of the data set.
            height: Of the cell, in pixels.
            width: Of the cell, in pixels.
            place: Where it is cropped; None where it is stretched.

        Returns:
            The content of the cell (height, width, 3) uint8, BGR.
        """
        if self._path is not None:
            store = open_store(self._path, self._source(own), self._tiles)
            image = store.read(store.row_of(name))
        elif self._reduces:
            image = read_reduced(pool.path_of(name), height, width)
        else:
            image = read_image(pool.path_of(name))
        if place is not None:
            image = crop_to_aspect(image, height, width, place)
        image = self._fitted(image, height, width)
        return blurred(image, self._blur) if self._blur else image

    def _fitted(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        if image.shape[:2] == (height, width):
            return image
        return cv2.resize(image, (width, height), interpolation=self._filter)


def _checked(store: Any) -> dict[str, Any]:
    """The options of a store, each for itself."""
    if not isinstance(store, dict) or 'path' not in store:
        raise ValueError(f"store={store!r} must be dict(path=..., encoding='raw' or 'jpeg', ...)")
    if unknown := set(store) - set(STORE_KEYS):
        raise ValueError(f'store has {sorted(unknown)}, but its entries are {STORE_KEYS}')
    encoding, quality = store.get('encoding', 'raw'), store.get('quality')
    if encoding not in ('raw', 'jpeg'):
        raise ValueError(f"store: encoding={encoding!r} is neither 'raw' nor 'jpeg'")
    if quality is not None and encoding == 'raw':
        raise ValueError("store: quality is for encoding='jpeg'")
    if quality is not None and not (is_number(quality) and quality in range(1, 101)):
        raise ValueError(f'store: quality={quality!r} must be a whole number from 1 to 100')
    size = store.get('size')
    if size is not None and not (
        np.shape(size) == (2,) and all(is_number(n) and n >= 1 and n == int(n) for n in size)
    ):
        raise ValueError(f'store: size={size!r} must be (height, width) of a tile')
    if not isinstance(store.get('resize', False), bool):
        raise ValueError(f'store: resize={store["resize"]!r} must be True or False')
    if not isinstance(store.get('target', False), (bool, str)):
        raise ValueError(f'store: target={store["target"]!r} must be True, False or a path')
    return dict(store)


# Handles of banks in this process. They are not kept in the transform, which is pickled to workers.
_OPEN_BANKS: OrderedDict[tuple[str, str], NegativeBank] = OrderedDict()


def open_bank(path: str, fingerprint: str) -> NegativeBank:
    """The bank at ``path``, checked once in each process to be that of the data set."""
    key = str(path), fingerprint
    if key not in _OPEN_BANKS:
        bank = NegativeBank(path)
        bank.check(fingerprint)
        _OPEN_BANKS[key] = bank
    return _OPEN_BANKS[key]


def random_names(
    pool: ImagePool,
    own: int | None,
    number: int,
    rng: np.random.Generator,
    taken: Sequence[str] = (),
    avoid: Sequence[str] = (),
) -> list[str]:
    """Names of ``number`` images of the pool, other than the item's own and those taken.

    Those to avoid come last; a pool with too few gives some images twice.

    Args:
        pool: The images.
        own: Row of the item's own image; None where the pool does not have it.
        number: How many names.
        rng: The sample's generator.
        taken: Names that are in the mosaic already.
        avoid: Names of images that may show the referent.
    """
    if len(pool) < 2:
        raise ValueError('a mosaic needs a second image, but the pool holds one')
    taken, avoid = set(taken), set(avoid)
    # A handful more than needed is drawn, so that a large pool is never enumerated.
    size = min(len(pool), number + len(taken) + len(avoid) + 1)
    candidates = rng.choice(len(pool), size=size, replace=False)
    free = [row for row in candidates if row != own and pool.names[row] not in taken]
    free = sorted(free, key=lambda row: pool.names[row] in avoid)[:number]
    while len(free) < number:
        row = int(rng.integers(len(pool)))
        if row != own:
            free.append(row)
    return [str(pool.names[row]) for row in free]


def crop_to_aspect(image: np.ndarray, height: int, width: int, place: float) -> np.ndarray:
    """The largest part of an image with the aspect of a cell.

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


def blurred(image: np.ndarray, strength: float) -> np.ndarray:
    """An image under a Gaussian.

    Args:
        image: (H, W, 3) uint8.
        strength: Standard deviation, as a share of the shorter side.

    Returns:
        An image like it.
    """
    return cv2.GaussianBlur(image, (0, 0), strength * min(image.shape[:2]))
