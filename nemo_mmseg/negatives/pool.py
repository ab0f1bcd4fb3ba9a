"""The images of a split, from which transforms draw other images."""

from __future__ import annotations

import copy
import hashlib
import os
import os.path as osp
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


class ImagePool:
    """Images of a data set by row, in rising order of their ids.

    It pickles, and workers share its arrays.

    Args:
        root: Folder of the images.
        ids: Image ids (I,), rising.
        names: File names (I,) inside ``root``.
        fingerprint: Digest of the data set the pool belongs to; a bank is checked against it.
    """

    def __init__(self, root: str, ids: list[int], names: list[str], fingerprint: str) -> None:
        self.root = str(root)
        # Arrays, not lists: reading a list in a forked worker copies its pages.
        self.ids = np.asarray(ids, dtype=np.int64)
        self.names = np.asarray(names, dtype=np.str_)
        self.fingerprint = fingerprint
        self._images_fingerprint: str | None = None

    @property
    def images_fingerprint(self) -> str:
        """Digest of the names and sizes in bytes of the files; a tile store is checked against it.

        The files are asked once; pickles carry the answer, and subsets made afterwards. Of files
        that are not local the names alone count.
        """
        if self._images_fingerprint is None:
            sizes = {}
            for name in self.names:
                found = self._stat(name)
                sizes[str(name)] = -1 if found is None else found.st_size
            self._images_fingerprint = _digest_of(sizes)
        return self._images_fingerprint

    def time_of(self, name: str) -> int:
        """When the file was last written, in nanoseconds; 0 where it is not local."""
        found = self._stat(name)
        return 0 if found is None else found.st_mtime_ns

    def digest_of(self, name: str) -> bytes:
        """Digest of what the file holds, 16 bytes; where it is not local, of its name alone."""
        path = self.path_of(name)
        content = Path(path).read_bytes() if _is_local(path) else str(name).encode()
        return hashlib.blake2b(content, digest_size=16).digest()

    def missing(self) -> list[str]:
        """Names of local files that are not there."""
        paths = ((str(name), self.path_of(name)) for name in self.names)
        return [name for name, path in paths if _is_local(path) and not osp.isfile(path)]

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(self.path_of(name))
        except OSError:  # missing, or not local
            return None

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, row: int) -> str:
        """Path of the image in ``row``."""
        return self.path_of(self.names[row])

    def path_of(self, name: str) -> str:
        """Path of the image with this file name."""
        return osp.join(self.root, str(name))

    def row_of(self, image_id: int) -> int:
        """Row of an image id.

        Raises:
            KeyError: The pool has no such image.
        """
        row = int(np.searchsorted(self.ids, image_id))
        if row == len(self.ids) or self.ids[row] != image_id:
            raise KeyError(f'image {image_id} is not in the pool')
        return row

    def find(self, image_id: int, path: str) -> int | None:
        """Row of an image of the data set, None where the pool does not have it.

        Args:
            image_id: Its id.
            path: Its file.
        """
        row = int(np.searchsorted(self.ids, image_id))
        return row if row < len(self.ids) and self.ids[row] == image_id else None

    def subset(self, rows: np.ndarray) -> ImagePool:
        """The pool of some rows (n,), rising; it keeps the fingerprint."""
        pool = copy.copy(self)
        pool.ids, pool.names = self.ids[rows], self.names[rows]
        return pool


class FolderPool(ImagePool):
    """The images of a folder and its sub-folders, in the order of their names.

    Names are paths inside the folder with ``/``; hidden files and folders are passed over, links
    are followed, and a folder that is met again is not listed twice. The fingerprint is that of
    names and sizes in bytes.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: There is no such folder, or it holds fewer than two images.
    """

    def __init__(self, root: str) -> None:
        files, seen = {}, set()
        for folder, folders, names in os.walk(root, followlinks=True):
            if osp.realpath(folder) in seen:  # a link to a folder above would go round and round
                folders.clear()
                continue
            seen.add(osp.realpath(folder))
            folders[:] = sorted(name for name in folders if not name.startswith('.'))
            for name in names:
                if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.'):
                    path = osp.join(folder, name)
                    files[osp.relpath(path, root).replace(os.sep, '/')] = osp.getsize(path)
        if len(files) < 2:
            raise FileNotFoundError(
                f'the folder of negatives {root} '
                + (
                    f'holds {len(files)} images, two are needed'
                    if osp.isdir(root)
                    else 'is missing'
                )
            )
        names = sorted(files)
        sizes = [(osp.basename(name), files[name]) for name in names]
        self._row_of = {key: row for row, key in enumerate(sizes)}
        super().__init__(root, np.arange(len(names)), names, _digest_of(files))
        self._images_fingerprint = self.fingerprint

    def find(self, image_id: int, path: str) -> int | None:
        """Row of the file of the same name and size, None where there is none."""
        return self._row_of.get((osp.basename(path), osp.getsize(path)))

    def subset(self, rows: np.ndarray) -> FolderPool:
        """The pool of some rows (n,), rising; it keeps the fingerprint."""
        pool = super().subset(rows)
        new = {int(row): i for i, row in enumerate(rows)}
        pool._row_of = {key: new[row] for key, row in self._row_of.items() if row in new}
        return pool


def _is_local(path: str) -> bool:
    return '://' not in path  # MMEngine's rule for file backends


def _digest_of(sizes: dict[str, int]) -> str:
    """Digest of files by name: their sizes in bytes."""
    return hashlib.sha256(repr(sorted(sizes.items())).encode()).hexdigest()


@lru_cache(maxsize=8)
def folder_pool(root: str) -> FolderPool:
    """The pool of a folder, listed once in each process."""
    return FolderPool(root)


def bank_fingerprint(own: Any, folder: str | None = None) -> str:
    """What a bank is checked against.

    Args:
        own: The data set, or its pool.
        folder: Folder of the negatives; None where they are the data set's own images.
    """
    if folder is None:
        return own.fingerprint
    return hashlib.sha256(
        f'{own.fingerprint} {folder_pool(folder).fingerprint}'.encode()
    ).hexdigest()


class MinedImages:
    """The image table of a bank: first the candidates, then own images that are none.

    An expression's own image is needed for its similarity to it, also where negatives come from a
    folder. If the folder holds that very file (same name and size), it is one image, and never the
    negative of its own expressions.

    Args:
        own: Pool of the data set.
        folder: Folder of the negatives; None where they are the data set's own images.

    Attributes:
        ids: Image ids (I,); of a folder's images -1 - row, as ids of data sets are not negative.
        names: File names (I,).
        candidates: How many of the images, from the first on, can become negatives.
        own_rows: Row of every image of the data set.
    """

    def __init__(self, own: ImagePool, folder: str | None = None) -> None:
        if folder is None:
            self._parts = [(own, range(len(own)))]
            self.ids, self.names, self.candidates = own.ids, own.names, len(own)
            self.own_rows = np.arange(len(own))
            return
        pool = folder_pool(folder)
        found = [pool.find(image_id, own.path(row)) for row, image_id in enumerate(own.ids)]
        self.own_rows = np.array([-1 if row is None else row for row in found], np.int64)
        others = np.flatnonzero(self.own_rows < 0)
        self.own_rows[others] = len(pool) + np.arange(len(others))
        self._parts = [(pool, range(len(pool))), (own, others)]
        self.ids = np.concatenate([-1 - pool.ids, np.asarray(own.ids)[others]])
        self.names = np.concatenate([pool.names, np.asarray(own.names)[others]])
        self.candidates = len(pool)

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, row: int) -> str:
        """Path of the image in ``row``."""
        for pool, rows in self._parts:
            if row < len(rows):
                return pool.path(rows[row])
            row -= len(rows)
        raise IndexError(f'image row {row} is outside the table')
