"""Makes a tile store in one pass over the images; a killed run is continued."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import torch
from mmengine.logging import print_log
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from nemo_mmseg.datasets.transforms.geometry import INTERPOLATIONS
from nemo_mmseg.datasets.transforms.loading import read_image
from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.negatives.tile_store import FORMAT_VERSION, TileSettings, TileStore, TileStoreError
from nemo_mmseg.utils.tensor_file import header_of

# Room for the header, which is written last: length (8 bytes) and JSON, padded with spaces.
_HEADER = 4096
# Images between two points at which a killed run can be continued.
_CHUNK = 256
# Of the index of a begun store: where a tile ends, and its image's shape, time and digest.
_RECORD = np.dtype([('end', '<i8'), ('shape', '<i4', 2), ('time', '<i8'), ('digest', 'u1', 16)])
# Encoded, with the other fields of its record.
_Tile = tuple[bytes, tuple[int, int], int, np.ndarray]


def make_tile_store(
    pool: ImagePool,
    path: str | Path,
    settings: TileSettings,
    num_workers: int = 2,
    timeout: float = 1800,
    progress: bool = True,
) -> TileStore:
    """Make the tile store of a pool, or find that it is there.

    In a torchrun job rank 0 writes, the others watch for the file, without a collective. Two files
    beside the store, ``<path>.part`` and ``<path>.part.index``, hold what is done; the store
    appears under its name when it is whole. Its bytes do not depend on workers or interruptions.

    Args:
        pool: The images.
        path: The store to write.
        settings: What its tiles are.
        num_workers: Processes that decode; 0 decodes here. Defaults to 2.
        timeout: Seconds to wait for rank 0 while nothing changes. Defaults to 1800.
        progress: Whether rank 0 shows a progress bar. Defaults to True.

    Returns:
        The store.

    Raises:
        TileStoreError: A file at ``path`` is damaged, or was made of other images or with other
            settings.
        ValueError: An image cannot be read.
        FileNotFoundError: An image is missing.
        OSError: There is no room for it, or ``path`` is a folder.
        TimeoutError: Rank 0 does not get on.
        RuntimeError: OpenCV is too old for JPEG tiles.
    """
    from nemo_mmseg.utils.dist import rank_and_world

    path = Path(path)
    if settings.encoding == 'jpeg' and not hasattr(cv2, 'IMWRITE_JPEG_SAMPLING_FACTOR'):
        raise RuntimeError(f'JPEG tiles need OpenCV 4.7 or newer, this is {cv2.__version__}')
    if path.is_dir():  # or all tiles would be made before the last step fails
        raise IsADirectoryError(f'the tile store {path} must be a file, but is a folder')
    if not path.is_file():
        if rank_and_world()[0] == 0:
            if missing := pool.missing():  # before hours are spent on the others
                raise FileNotFoundError(
                    f'of {len(pool)} images {len(missing)} are missing, first '
                    f'{pool.path_of(missing[0])}'
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            _Writer(pool, path, settings).write(num_workers, progress)
        else:
            _wait(path, timeout)
    store = TileStore(path)
    store.check(pool, settings)
    return store


class _Tiles(Dataset):
    """Tile and record of each image; what goes wrong is returned as an error."""

    def __init__(self, pool: ImagePool, names: list[str], settings: TileSettings) -> None:
        self.pool, self.settings = pool, settings
        self.names = np.array(names)  # an array: reading a list in a forked worker copies its pages

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> _Tile | Exception:
        name = self.names[row]
        try:
            # In this order: what changes in between does not pass for what the tile was made of.
            time, digest = self.pool.time_of(name), self.pool.digest_of(name)
            image = read_image(self.pool.path_of(name))
        except (OSError, ValueError) as error:
            # Raised where the batch arrives: a worker would wrap it into its own traceback.
            return error
        tile = encode(resize_to_tile(image, self.settings), self.settings)
        return tile, image.shape[:2], time, np.frombuffer(digest, 'u1')


def resize_to_tile(image: np.ndarray, settings: TileSettings) -> np.ndarray:
    """The tile (height, width, 3) of an image (H, W, 3)."""
    return cv2.resize(
        image,
        (settings.width, settings.height),
        interpolation=INTERPOLATIONS[settings.interpolation],
    )


def encode(tile: np.ndarray, settings: TileSettings) -> bytes:
    """The bytes of a tile in a store."""
    if settings.encoding == 'raw':
        return tile.tobytes()
    options = [
        cv2.IMWRITE_JPEG_QUALITY, settings.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    ]  # fmt: skip
    return cv2.imencode('.jpg', tile, options)[1].tobytes()


class _Writer:
    """Writes one store: the tiles one after the other, then the tables, then the header.

    The index gets the records of a chunk when its tiles are on the disk, so every record is true
    whenever the run is killed. It begins with a digest of the settings; images are compared one by
    one, for a tile depends on no other image than its own.

    Args:
        pool: The images.
        path: The store.
        settings: What its tiles are.
    """

    def __init__(self, pool: ImagePool, path: Path, settings: TileSettings) -> None:
        self.pool, self.path, self.settings = pool, path, settings
        self.names = sorted({str(name) for name in pool.names}, key=str.encode)
        self.part = path.with_name(path.name + '.part')
        self.index = path.with_name(path.name + '.part.index')
        self.metadata = dict(
            settings.metadata(pool), format=FORMAT_VERSION, versions=dict(opencv=cv2.__version__)
        )
        made_with = {key: self.metadata[key] for key in self.metadata if key != 'fingerprint'}
        self.digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).digest()

    def write(self, num_workers: int, progress: bool) -> None:
        """Write what is missing, and give the store its name."""
        with open(self.part, 'a+b') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print_log(f'another process makes {self.path}: waiting for it', 'current')
                fcntl.flock(lock, fcntl.LOCK_EX)
            if self.path.is_file():  # the other one made it; what was locked may be its remains
                self.part.unlink(missing_ok=True)
                return
            with open(self.part, 'r+b') as tiles, open(self.index, 'a+b') as index:
                records = self._resume(tiles, index)
                self._check_room(len(records))
                records = self._add_tiles(tiles, index, records, num_workers, progress)
                self._finish(tiles, records)
            os.replace(self.part, self.path)
            self.index.unlink()
        print_log(
            f'{self.path}: {len(self.names)} tiles, {self.path.stat().st_size / 2**20:.0f} MiB',
            'current',
        )

    def _resume(self, tiles: BinaryIO, index: BinaryIO) -> np.ndarray:
        """The records (n,) of tiles that are there, of the present images; others are cut off."""
        index.seek(0)
        digest, content = index.read(len(self.digest)), index.read()
        if digest != self.digest:
            if digest:
                print_log(
                    f'{self.part} was begun with other settings or another version of OpenCV or '
                    'this package: it starts anew',
                    'current',
                )
            index.truncate(0)
            index.write(self.digest)
            content = b''
        records = np.frombuffer(content, _RECORD, len(content) // _RECORD.itemsize)
        size = tiles.seek(0, os.SEEK_END) - _HEADER
        # A record that the disk lost is 0.
        good = (np.diff(records['end'], prepend=0) > 0) & (records['end'] <= size)
        records = records[: len(records) if good.all() else int(np.argmin(good))]
        records = self._of_present_images(records)
        index.truncate(len(self.digest) + records.nbytes)
        end = _HEADER + (int(records['end'][-1]) if len(records) else 0)
        tiles.truncate(end)
        tiles.seek(end)
        if len(records):
            print_log(
                f'{self.part}: {len(records)} of {len(self.names)} tiles are there', 'current'
            )
        return records

    def _of_present_images(self, records: np.ndarray) -> np.ndarray:
        """The records up to the first whose image is another one by now."""
        records = records[: len(self.names)].copy()
        for row, name in enumerate(self.names[: len(records)]):
            records['time'][row] = self.pool.time_of(name)
            # By content, whatever the time is: what is kept here is not looked at again.
            if self.pool.digest_of(name) != records['digest'][row].tobytes():
                print_log(
                    f'{self.part}: in the place of {name} was another image; tiles from it on are '
                    'made anew',
                    'current',
                )
                return records[:row]
        return records

    def _check_room(self, done: int) -> None:
        if self.settings.encoding == 'raw':
            missing = len(self.names) - done
            needed = missing * self.settings.height * self.settings.width * 3
            free = shutil.disk_usage(self.path.parent).free
            if needed > free:
                raise OSError(
                    f'the tile store {self.path} needs {needed / 1e9:.1f} GB more, but '
                    f'{free / 1e9:.1f} GB are free (JPEG tiles take about a fifth)'
                )

    def _add_tiles(
        self,
        tiles: BinaryIO,
        index: BinaryIO,
        records: np.ndarray,
        num_workers: int,
        progress: bool,
    ) -> np.ndarray:
        """Write the tiles that are missing; returns all records (I,)."""
        rest = range(len(records), len(self.names))
        loader = DataLoader(
            _Tiles(self.pool, self.names, self.settings),
            batch_size=32,
            sampler=rest,
            num_workers=num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # the loader would draw a seed from the global one
        )
        end = int(records['end'][-1]) if len(records) else 0
        bar = tqdm(total=len(rest), desc='tiles', disable=not progress, mininterval=0.5)
        parts, chunk = [records], []
        with bar:
            for content, *about in _unfolded(loader):
                tiles.write(content)
                end += len(content)
                chunk.append((end, *about))
                bar.update()
                if len(chunk) == _CHUNK or len(chunk) + sum(map(len, parts)) == len(self.names):
                    parts.append(np.array(chunk, _RECORD))
                    _to_disk(tiles)
                    index.write(parts[-1].tobytes())
                    _to_disk(index)
                    chunk = []
        return np.concatenate(parts)

    def _finish(self, tiles: BinaryIO, records: np.ndarray) -> None:
        """Append the tables, and write the header into the room left for it."""
        names, size = [name.encode() for name in self.names], int(records['end'][-1])
        if self.settings.encoding == 'raw':
            shape = len(names), self.settings.height, self.settings.width, 3
        else:
            tiles.write(bytes(-size % 8))  # the tables begin at a multiple of their elements
            shape = (size + -size % 8,)
        tables = dict(
            ends=records['end'].astype('<i8'),
            name_offsets=np.cumsum([0, *map(len, names)], dtype='<i8'),
            shapes=records['shape'].astype('<i4'),
            digests=records['digest'],
            times=records['time'],  # TileStore.check counts from the end to where they are
            name_bytes=np.frombuffer(b''.join(names), 'u1'),
        )
        layout: dict[str, Any] = dict(tiles=(np.dtype('u1'), shape))
        layout |= {name: (table.dtype, table.shape) for name, table in tables.items()}
        for table in tables.values():
            tiles.write(table.tobytes())
        header = json.dumps(header_of(layout, self.metadata), separators=(',', ':')).encode()
        length = _HEADER - 8
        if len(header) > length:
            raise TileStoreError(f'the header of {self.path} needs more than {length} bytes')
        tiles.seek(0)
        tiles.write(length.to_bytes(8, 'little') + header.ljust(length))
        _to_disk(tiles)


def _unfolded(loader: DataLoader) -> Iterator[_Tile]:
    for batch in loader:
        for found in batch:
            if isinstance(found, Exception):
                raise found
            yield found


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _wait(path: Path, timeout: float) -> None:
    """Look again and again, as long as rank 0 writes."""
    part, seen, since = path.with_name(path.name + '.part'), None, time.monotonic()
    while not path.is_file():
        try:
            size = part.stat().st_size
        except FileNotFoundError:  # not begun, or just renamed
            size = None
        if size != seen:
            seen, since = size, time.monotonic()
        elif time.monotonic() - since > timeout:
            raise TimeoutError(
                f'waited for rank 0 to make {path}, but {part} did not grow for {timeout:g} s. '
                'Start the run again: it continues'
            )
        time.sleep(0.2)
