"""The tile store: every image of a pool, resized once, in one memory-mapped safetensors file.

Arrays, for I images in the order of their names:

================  ==============================  ==============================================
``tiles``         uint8 (I, height, width, 3)     BGR pixels (raw), or one JPEG file after the
                  or (n,)                         other
``ends``          int64 (I,)                      byte at which each tile ends (n may be padded)
``name_offsets``  int64 (I + 1,)                  where each name begins
``shapes``        int32 (I, 2)                    height and width of the original images
``digests``       uint8 (I, 16)                   of the files' content (``ImagePool.digest_of``)
``name_bytes``    uint8                           file names in UTF-8, one after the other
``checksums``     uint64 (I,)                     of the bytes of each tile
================  ==============================  ==============================================

Whoever opens the file compares the header and all arrays but the tiles with checksums in the
header. A tile is compared when a process first reads it (4 to 15 us for 256 x 256 pixels).
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from nemo_mmseg.utils.tensor_file import MappedFile, Names, checksum

from .pool import ImagePool

FORMAT_VERSION = 4
ARRAYS = ('tiles', 'ends', 'name_offsets', 'checksums', 'shapes', 'digests', 'name_bytes')


class TileStoreError(RuntimeError):
    """The file is no tile store, is damaged, or was made of other images or for another config."""


@dataclass(frozen=True)
class TileSpec:
    """Where a tile store lies and what its tiles are.

    Attributes:
        path: The file; ``~`` is the home folder.
        height: Of a tile, in pixels.
        width: Of a tile, in pixels.
        interpolation: Filter of the resize from the full image.
        encoding: ``'raw'``, the same pixels as without store, or ``'jpeg'`` (quality 92, colours at
            half the width), a fifth of the bytes.
    """

    path: str
    height: int
    width: int
    interpolation: str = 'bilinear'
    encoding: str = 'raw'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'path', os.path.expanduser(self.path))
        if self.encoding not in ('raw', 'jpeg'):
            raise ValueError(f"tiles: encoding={self.encoding!r} is neither 'raw' nor 'jpeg'")

    def metadata(self, pool: ImagePool) -> dict[str, Any]:
        """Return what the metadata of such a store of a pool must say."""
        settings = {key: value for key, value in asdict(self).items() if key != 'path'}
        return dict(settings, fingerprint=pool.images_fingerprint)


class TileStore(MappedFile):
    """Read a tile store; see this module for what it holds.

    Args:
        path: The file.
    """

    KIND = 'tile store'
    FORMATS = {FORMAT_VERSION: ARRAYS}
    CHECKED_FROM = 4
    MAKE_COMMAND = 'python tools/misc/make_tile_store.py CONFIG'
    ERROR = TileStoreError

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        # Whether this process has compared each tile with its checksum.
        self._compared: bytearray | None = None

    def __len__(self) -> int:
        return len(self.arrays['ends'])

    @property
    def names(self) -> Names:
        """File names (I,), sorted by their bytes."""
        return Names(self.arrays['name_bytes'], self.arrays['name_offsets'])

    def check(self, pool: ImagePool, spec: TileSpec) -> None:
        """Refuse a store that was made of other images or with other settings.

        Files that were written after the store are compared by their content. Where it is equal,
        the store gets the time of now, so a data set that was copied is compared once.

        Args:
            pool: The images it must hold.
            spec: What its tiles must be.

        Raises:
            TileStoreError: It was.
        """
        self.check_metadata(pool, spec)
        made, names = os.stat(self.path).st_mtime_ns, self.names
        written = [row for row, name in enumerate(names) if pool.time_of(name) > made]
        for row in written:
            if pool.digest_of(names[row]) != self.arrays['digests'][row].tobytes():
                raise TileStoreError(
                    f'the tile store {self.path} has an old tile of {pool.path_of(names[row])}: '
                    f'the image changed since. Delete the store and make it again with '
                    f'`{self.MAKE_COMMAND}`'
                )
        if written:
            with contextlib.suppress(OSError):  # another user's
                os.utime(self.path)

    def check_metadata(self, pool: ImagePool, spec: TileSpec) -> None:
        """Do as :meth:`check`, but notice of a changed image the size alone."""
        wanted, made = spec.metadata(pool), self.metadata
        differ = [f'{key}={made.get(key)!r}' for key in wanted if made.get(key) != wanted[key]]
        if differ:
            raise TileStoreError(
                f'the tile store {self.path} was made with {", ".join(differ)}; the config asks '
                f'for {spec} of the {len(pool)} images in {pool.root} (the fingerprint is that of '
                'their names and sizes in bytes). Name another path, or delete it and make it '
                f'again with `{self.MAKE_COMMAND}`'
            )

    def row_of(self, name: str) -> int:
        """Find the row of an image.

        Args:
            name: Its file name in the pool.

        Raises:
            TileStoreError: The store does not have it.
        """
        # By bisection in the file: a table of names in each process would add up.
        text, offsets = self.arrays['name_bytes'], self.arrays['name_offsets']

        def name_in(row: int) -> bytes:
            return text[offsets[row] : offsets[row + 1]].tobytes()

        row = bisect_left(range(len(self)), name.encode(), key=name_in)
        if row == len(self) or name_in(row) != name.encode():
            raise TileStoreError(f'the tile store {self.path} has no image {name}')
        return row

    def read(self, row: int) -> np.ndarray:
        """Read the tile ``(height, width, 3)`` uint8, BGR, in a row; raw ones are read-only views.

        Raises:
            TileStoreError: The tile is damaged.
        """
        tiles = self.arrays['tiles']
        if tiles.ndim == 4:
            self._compare(row, tiles[row])
            return tiles[row]
        ends = self.arrays['ends']
        content = tiles[ends[row - 1] if row else 0 : ends[row]]
        self._compare(row, content)
        tile = cv2.imdecode(content, cv2.IMREAD_COLOR)
        wanted = self.metadata['height'], self.metadata['width'], 3
        if tile is None or tile.shape != wanted:
            raise self.damaged(f'the tile of {self.names[row]} is no image of {wanted}')
        return tile

    def _compare(self, row: int, content: np.ndarray) -> None:
        """Compare a tile with its checksum, the first time."""
        if self._compared is None:
            self._compared = bytearray(len(self))
        if not self._compared[row]:
            if checksum(content) != self.arrays['checksums'][row]:
                raise self.damaged(f'the tile of {self.names[row]} is not what was written')
            self._compared[row] = 1

    def shape_of(self, row: int) -> tuple[int, int]:
        """Return height and width of the original image, in pixels."""
        height, width = self.arrays['shapes'][row].tolist()
        return height, width


# Handles of stores in this process. They are not kept in transforms, which are pickled to workers.
_OPEN_STORES: dict[tuple[str, TileSpec], TileStore] = {}


def open_store(spec: TileSpec, pool: ImagePool) -> TileStore:
    """Open a store once in each process, and check its metadata.

    The images were compared before the training (:meth:`TileStore.check`).
    """
    key = pool.images_fingerprint, spec
    if key not in _OPEN_STORES:
        store = TileStore(spec.path)
        store.check_metadata(pool, spec)
        _OPEN_STORES[key] = store
    return _OPEN_STORES[key]
