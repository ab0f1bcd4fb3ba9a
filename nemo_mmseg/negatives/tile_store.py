"""The tile store: every image of a pool, resized once, in one memory-mapped safetensors file.

Arrays, for I images in the order of their names:

================  ==============================  ==============================================
``tiles``         uint8 (I, height, width, 3)     BGR pixels (raw), or one JPEG file after the
                  or (n,)                         other
``ends``          int64 (I,)                      byte at which each tile ends (n may be padded)
``shapes``        int32 (I, 2)                    height and width of the original images
``digests``       uint8 (I, 16)                   of the files' content (``ImagePool.digest_of``)
``times``         int64 (I,)                      when the files that hold it were written, in ns
``name_offsets``  int64 (I + 1,)                  where each name begins
``name_bytes``    uint8                           file names in UTF-8, one after the other
================  ==============================  ==============================================
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from nemo_mmseg.utils.tensor_file import Names, TensorFile

from .pool import ImagePool

FORMAT_VERSION = 2
ARRAYS = ('tiles', 'ends', 'shapes', 'digests', 'times', 'name_offsets', 'name_bytes')
MAKE_COMMAND = 'python tools/misc/make_tile_store.py CONFIG'
# Handles of stores in this process. They are not kept in transforms, which are pickled to workers.
_OPEN_STORES: dict[tuple, TileStore] = {}


class TileStoreError(RuntimeError):
    """The file is no tile store, is damaged, or was made of other images or for another config."""


@dataclass(frozen=True)
class TileSettings:
    """What the tiles of a store are.

    Attributes:
        height: Of a tile, in pixels.
        width: Of a tile, in pixels.
        interpolation: Filter of the resize from the full image.
        encoding: ``'raw'`` or ``'jpeg'``.
        quality: Of JPEG tiles, 1 to 100 (colours at half the width); None of raw ones.
    """

    height: int
    width: int
    interpolation: str = 'bilinear'
    encoding: str = 'raw'
    quality: int | None = None

    def metadata(self, pool: ImagePool) -> dict[str, Any]:
        """What the metadata of a store of a pool must say."""
        return dict(asdict(self), fingerprint=pool.images_fingerprint)


@dataclass(frozen=True)
class TileSpec:
    """Where a tile store lies and what its tiles are.

    Attributes:
        path: The file.
        height: Of a tile, in pixels.
        width: Of a tile, in pixels.
        interpolation: Filter of the resize from the full image.
        encoding: ``'raw'`` or ``'jpeg'`` (quality 92, colours at half the width).
    """

    path: str
    height: int
    width: int
    interpolation: str = 'bilinear'
    encoding: str = 'raw'


class TileStore:
    """Reads a tile store. Opened at first use in each process; a pickle of it holds the path alone.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: At first use, if there is no such file. The message has the command that
            makes it.
        TileStoreError: At first use, if the file is cut short, damaged or no tile store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: TensorFile | None = None

    def __getstate__(self) -> dict:
        return dict(path=self.path)

    def __setstate__(self, state: dict) -> None:
        self.__init__(state['path'])

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.path)!r})'

    def __len__(self) -> int:
        return len(self._open().arrays['ends'])

    def _open(self) -> TensorFile:
        if self._file is None:
            if not self.path.is_file():
                raise FileNotFoundError(
                    f'there is no tile store {self.path}. Make it with `{MAKE_COMMAND}` (training '
                    'does it by itself when the config has the NegativeMiningHook)'
                )
            again = f'Delete it and make it again with `{MAKE_COMMAND}`'
            self._file = TensorFile(
                self.path, ARRAYS, FORMAT_VERSION, 'tile store', again, TileStoreError
            )
        return self._file

    @property
    def metadata(self) -> dict[str, Any]:
        """What made the store: settings, fingerprint of the images, version of OpenCV."""
        return self._open().metadata

    @property
    def names(self) -> Names:
        """File names (I,), sorted by their bytes."""
        arrays = self._open().arrays
        return Names(arrays['name_bytes'], arrays['name_offsets'])

    def check(self, pool: ImagePool, settings: TileSettings) -> None:
        """Refuse a store that was made of other images or with other settings.

        A file that was written at another time than the one whose tile was made is compared by its
        content. The new time is kept where that is equal, so a data set that was copied is read
        once (two copies that share a store: whenever the other one was used before).

        Args:
            pool: The images it must hold.
            settings: What its tiles must be.

        Raises:
            TileStoreError: It was.
        """
        self.check_metadata(pool, settings)
        arrays, names = self._open().arrays, self.names
        # Before their content: a file that changes meanwhile is read again the next time.
        times = np.array([pool.time_of(name) for name in names], '<i8')
        rewritten = np.flatnonzero(times != arrays['times'])
        if len(rewritten):
            print_log(
                f'{self.path}: {len(rewritten)} of {len(names)} image files were written at other '
                'times than those its tiles were made of; they are compared by content',
                'current',
            )
        for row in rewritten:
            if pool.digest_of(names[row]) != arrays['digests'][row].tobytes():
                raise TileStoreError(
                    f'the tile store {self.path} has an old tile of {pool.path_of(names[row])}: '
                    f'the image changed since. Delete the store and make it again with '
                    f'`{MAKE_COMMAND}`'
                )
        if len(rewritten):
            with contextlib.suppress(OSError), open(self.path, 'r+b') as file:
                # The last array but the names. Another store may have taken this one's place.
                place = file.seek(-times.nbytes - arrays['name_bytes'].nbytes, os.SEEK_END)
                if file.read(times.nbytes) == arrays['times'].tobytes():
                    file.seek(place)
                    file.write(times.tobytes())

    def check_metadata(self, pool: ImagePool, settings: TileSettings) -> None:
        """:meth:`check`, but of a changed image notice the size alone.

        Args:
            pool: The images it must hold.
            settings: What its tiles must be.

        Raises:
            TileStoreError: It was made of other images or with other settings.
        """
        wanted, made = settings.metadata(pool), self.metadata
        other = [key for key in wanted if made.get(key) != wanted[key]]
        if 'fingerprint' in other:
            raise TileStoreError(
                f'the tile store {self.path} was made of other images than the {len(pool)} in '
                f'{pool.root} (their names or sizes in bytes differ). Name another path, or delete '
                f'it and make it again with `{MAKE_COMMAND}`'
            )
        if other:
            differences = ', '.join(f'{key}={made.get(key)!r}' for key in other)
            asked = ', '.join(f'{key}={wanted[key]!r}' for key in other)
            raise TileStoreError(
                f'the tile store {self.path} was made with {differences}, the config asks for '
                f'{asked}. Name another path, or delete it and make it again with `{MAKE_COMMAND}`'
            )

    def row_of(self, name: str) -> int:
        """Row of an image.

        Args:
            name: Its file name in the pool.

        Raises:
            TileStoreError: The store does not have it.
        """
        # By bisection in the file: a table of names in each process would add up.
        arrays, wanted = self._open().arrays, name.encode()
        text, offsets = arrays['name_bytes'], arrays['name_offsets']
        row = bisect_left(
            range(len(self)), wanted, key=lambda i: text[offsets[i] : offsets[i + 1]].tobytes()
        )
        if row == len(self) or self.names[row] != name:
            raise TileStoreError(f'the tile store {self.path} has no image {name}')
        return row

    def read(self, row: int) -> np.ndarray:
        """The tile (height, width, 3) uint8, BGR, in a row; raw tiles are read-only views.

        Raises:
            TileStoreError: A JPEG tile is damaged.
        """
        arrays = self._open().arrays
        if arrays['tiles'].ndim == 4:
            return arrays['tiles'][row]
        begin = arrays['ends'][row - 1] if row else 0
        tile = cv2.imdecode(arrays['tiles'][begin : arrays['ends'][row]], cv2.IMREAD_COLOR)
        if tile is None:
            raise TileStoreError(f'the tile of {self.names[row]} in {self.path} is damaged')
        return tile

    def shape_of(self, row: int) -> tuple[int, int]:
        """Height and width of the original image, in pixels."""
        height, width = self._open().arrays['shapes'][row].tolist()
        return height, width


def open_store(path: str | Path, pool: ImagePool, settings: TileSettings) -> TileStore:
    """The store at ``path``, its metadata checked once in each process.

    The images were compared when the data set was built (:meth:`TileStore.check`); workers need
    not ask for each file again.
    """
    key = str(path), pool.images_fingerprint, settings
    if key not in _OPEN_STORES:
        store = TileStore(path)
        store.check_metadata(pool, settings)
        _OPEN_STORES[key] = store
    return _OPEN_STORES[key]
