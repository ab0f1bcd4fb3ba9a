"""Makes a tile store in one pass over the images; a run that was killed is continued."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
from mmcv.image.geometric import cv2_interp_codes
from mmengine.logging import print_log
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.negatives.tile_store import ARRAYS, FORMAT_VERSION, TileSpec, TileStore
from nemo_mmseg.utils.atomic_write import check_file_path, while_writing
from nemo_mmseg.utils.dist import end_with_parent, rank_and_world, wait_for
from nemo_mmseg.utils.file_lock import only_one
from nemo_mmseg.utils.images import read_image
from nemo_mmseg.utils.tensor_file import checksum, checksum_text, header_of

JPEG_QUALITY = 92
# Images between two points at which a killed run can be continued.
BATCH_SIZE = 32
# Room for the header, which is written last: length (8 bytes) and JSON, padded with spaces.
HEADER_SIZE = 4096
# Of the index of a begun store: where a tile ends and its checksum, shape and digest of its image,
# and the checksum of all these.
RECORD = np.dtype(
    [('end', '<i8'), ('tile', '<u8'), ('shape', '<i4', 2), ('digest', 'u1', 16), ('own', '<u8')]
)


def make_tile_store(
    pool: ImagePool,
    spec: TileSpec,
    num_workers: int = 2,
    timeout: float = 1800,
    progress: bool = True,
) -> TileStore:
    """Make the tile store of a pool, or find that it is there.

    In a torchrun job rank 0 writes, and the others watch for the file, without a collective. Two
    files beside the store, ``<path>.part`` and ``<path>.part.index``, hold what is done, and
    ``<path>.lock`` tells other jobs who writes. The store appears under its name when it is whole.
    Its bytes do not depend on workers or interruptions.

    A begun store is continued by content: images whose file has another digest by now are resized
    again, and so are tiles that have not the checksum of what was written. A finished one is
    checked by :meth:`TileStore.check`. What a killed job left beside it is removed.

    Args:
        pool: The images.
        spec: Where the store lies and what its tiles are.
        num_workers: Processes that decode; 0 decodes here. Defaults to 2.
        timeout: Seconds to wait for rank 0, or for another job, while nothing gets on. Defaults to
            1800.
        progress: Whether rank 0 shows a progress bar. Defaults to True.

    Returns:
        The store.

    Raises:
        TileStoreError: A file at the path is damaged, or was made of other images or with other
            settings.
        ValueError: An image cannot be read.
        FileNotFoundError: An image is missing.
        OSError: There is no room for it, or the path is a folder.
        TimeoutError: Rank 0, or another job, does not get on.
    """
    path = Path(spec.path)
    check_file_path(path)
    part, index, lock = (
        path.with_name(path.name + end) for end in ('.part', '.part.index', '.lock')
    )
    if rank_and_world()[0] != 0:
        wait_for(lambda: path.is_file() or None, lambda: [part], timeout, f'rank 0 and {path}')
    elif not path.is_file():
        with only_one(lock, timeout, f'make {path}', lambda: [part]):
            if not path.is_file():  # another job may have made it
                _Writer(pool, spec, part, index).write(num_workers, progress)
            index.unlink(missing_ok=True)
    elif any(file.exists() for file in (part, index, lock)):
        # What a job left that was killed at its very end. It may be another user's.
        with suppress(OSError), only_one(lock, 0, f'remove what is left beside {path}'):
            part.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
    store = TileStore(path)
    store.check(pool, spec)
    return store


class _Tiles(Dataset):
    """Tile, shape and digest of each image; what goes wrong is returned as an error."""

    def __init__(self, pool: ImagePool, names: list[str], spec: TileSpec) -> None:
        self.pool, self.spec = pool, spec
        self.names = np.array(names)  # an array: reading a list in a forked worker copies its pages

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> tuple[bytes, tuple[int, int], np.ndarray] | Exception:
        name = self.names[row]
        try:
            # In this order: what changes in between does not pass for what the tile was made of.
            digest = np.frombuffer(self.pool.digest_of(name), 'u1')
            image = read_image(self.pool.path_of(name))
        except (OSError, ValueError) as error:
            # Raised where the batch arrives: a worker would wrap it into its own traceback.
            return error
        return encode(resize_to_tile(image, self.spec), self.spec), image.shape[:2], digest


def resize_to_tile(image: np.ndarray, spec: TileSpec) -> np.ndarray:
    """Return the tile ``(height, width, 3)`` of an image ``(H, W, 3)``."""
    size = spec.width, spec.height
    return cv2.resize(image, size, interpolation=cv2_interp_codes[spec.interpolation])


def encode(tile: np.ndarray, spec: TileSpec) -> bytes:
    """Return the bytes of a tile in a store; JPEG needs OpenCV 4.7 or newer."""
    if spec.encoding == 'raw':
        return tile.tobytes()
    options = [
        cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    ]  # fmt: skip
    return cv2.imencode('.jpg', tile, options)[1].tobytes()


class _Writer:
    """Writes one store: the tiles one after the other, then the tables, then the header.

    The index gets the records of a batch when its tiles are on the disk, so every record is true
    whenever the run is killed. It begins with a digest of the settings. Images are compared one by
    one, for a tile depends on no other image than its own.
    """

    def __init__(self, pool: ImagePool, spec: TileSpec, part: Path, index: Path) -> None:
        self.pool, self.spec, self.path = pool, spec, Path(spec.path)
        self.part, self.index = part, index
        self.names = sorted({str(name) for name in pool.names}, key=str.encode)
        self.metadata = dict(
            spec.metadata(pool), format=FORMAT_VERSION, versions=dict(opencv=cv2.__version__)
        )
        settings = {key: self.metadata[key] for key in self.metadata if key != 'fingerprint'}
        self.digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()

    def write(self, num_workers: int, progress: bool) -> None:
        """Write what is missing, and give the store its name."""
        remark = f'. What is done stays in {self.part}: the same command continues it'
        with while_writing(self.path, self.part, remark):
            self.part.touch()
            with open(self.part, 'r+b') as tiles, open(self.index, 'a+b') as index:
                records = self._resume(tiles, index)
                self._look_ahead(len(records))
                records = self._add_tiles(tiles, index, records, num_workers, progress)
                self._finish(tiles, records)
        os.replace(self.part, self.path)
        size = self.path.stat().st_size / 2**20
        print_log(f'{self.path}: {len(self.names)} tiles, {size:.0f} MiB', 'current')

    def _look_ahead(self, done: int) -> None:
        """Fail before hours are spent, not after."""
        if missing := self.pool.missing():
            raise FileNotFoundError(
                f'of {len(self.pool)} images {len(missing)} are missing, first '
                f'{self.pool.path_of(missing[0])}'
            )
        needed = (len(self.names) - done) * self.spec.height * self.spec.width * 3
        free = shutil.disk_usage(self.path.parent).free
        if self.spec.encoding == 'raw' and needed > free:
            raise OSError(
                f'the tile store {self.path} needs {needed / 1e9:.1f} GB more, but '
                f'{free / 1e9:.1f} GB are free (JPEG tiles take about a fifth)'
            )

    def _resume(self, tiles: BinaryIO, index: BinaryIO) -> np.ndarray:
        """The records ``(n,)`` of tiles that are there, of the present images."""
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
        records = np.frombuffer(content, RECORD, len(content) // RECORD.itemsize)
        records = records[: len(self.names)]
        tiles.seek(HEADER_SIZE)
        end = 0
        for row, name in enumerate(self.names[: len(records)]):
            record, size = records[row], int(records['end'][row]) - end
            end += size
            # A record that the disk lost is 0.
            good = size > 0 and record['own'] == _checksum_of(record)
            good = good and checksum(tiles.read(size)) == record['tile']
            if not good or self.pool.digest_of(name) != record['digest'].tobytes():
                print_log(f'{self.part}: the tiles from {name} on are made anew', 'current')
                records = records[:row]
                break
        index.truncate(len(self.digest) + records.nbytes)
        tiles.truncate(HEADER_SIZE + _end(records))
        tiles.seek(0, os.SEEK_END)
        return records

    def _add_tiles(
        self,
        tiles: BinaryIO,
        index: BinaryIO,
        records: np.ndarray,
        num_workers: int,
        progress: bool,
    ) -> np.ndarray:
        """Write the tiles that are missing; return all records ``(I,)``."""
        loader = DataLoader(
            _Tiles(self.pool, self.names, self.spec),
            batch_size=BATCH_SIZE,
            sampler=range(len(records), len(self.names)),
            num_workers=num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # the loader would draw a seed from the global one
            worker_init_fn=end_with_parent,
        )
        parts, end = [records], _end(records)
        with tqdm(
            total=len(self.names), initial=len(records), desc='tiles', disable=not progress
        ) as bar:
            for batch in loader:
                new = np.zeros(len(batch), RECORD)
                for record, found in zip(new, batch):
                    if isinstance(found, Exception):
                        raise found
                    tiles.write(found[0])
                    end += len(found[0])
                    record['end'], record['tile'] = end, checksum(found[0])
                    record['shape'], record['digest'] = found[1:]
                    record['own'] = _checksum_of(record)
                _to_disk(tiles)
                index.write(new.tobytes())
                _to_disk(index)
                parts.append(new)
                bar.update(len(batch))
        return np.concatenate(parts)

    def _finish(self, tiles: BinaryIO, records: np.ndarray) -> None:
        """Append the tables, and write the header into the room left for it."""
        names, size = [name.encode() for name in self.names], _end(records)
        if self.spec.encoding == 'raw':
            shape = len(names), self.spec.height, self.spec.width, 3
        else:
            tiles.write(bytes(-size % 8))  # the tables begin at a multiple of their elements
            shape = (size + -size % 8,)
        tables = dict(
            ends=records['end'].astype('<i8'),
            name_offsets=np.cumsum([0, *map(len, names)], dtype='<i8'),
            checksums=records['tile'].astype('<u8'),
            shapes=records['shape'].astype('<i4'),
            digests=records['digest'],
            name_bytes=np.frombuffer(b''.join(names), 'u1'),
        )
        layout, checksums = dict(tiles=(np.dtype('u1'), shape)), {}
        for name in ARRAYS[1:]:
            content = np.ascontiguousarray(tables[name])
            tiles.write(content.tobytes())
            layout[name], checksums[name] = (content.dtype, content.shape), checksum_text(content)
        header, _ = header_of(layout, self.metadata, checksums, HEADER_SIZE)
        tiles.seek(0)
        tiles.write(header)
        _to_disk(tiles)


def _checksum_of(record: np.void) -> int:
    return checksum(record.tobytes()[: -RECORD['own'].itemsize])


def _end(records: np.ndarray) -> int:
    return int(records['end'][-1]) if len(records) else 0


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
