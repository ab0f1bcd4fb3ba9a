"""Pools: the images from which transforms draw negatives."""

from __future__ import annotations

import copy
import hashlib
import os
import os.path as osp
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


class ImagePool:
    """Images of a data set by row, in rising order of their ids.

    It pickles, and workers share its arrays.

    Args:
        root: Folder of the images.
        ids: Image ids ``(I,)``, rising.
        names: File names ``(I,)``, paths inside ``root`` with ``/``.
        fingerprint: Digest of the data set the pool belongs to; a bank is checked against it.
    """

    def __init__(
        self, root: str, ids: Sequence[int], names: Sequence[str], fingerprint: str
    ) -> None:
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
        """Return when the file was last written, in nanoseconds; 0 where it is not local."""
        found = self._stat(name)
        return 0 if found is None else found.st_mtime_ns

    def digest_of(self, name: str) -> bytes:
        """Return a digest of 16 bytes of the file's content; of its name where it is not local."""
        path = self.path_of(name)
        content = Path(path).read_bytes() if _is_local(path) else str(name).encode()
        return hashlib.blake2b(content, digest_size=16).digest()

    def missing(self) -> list[str]:
        """Return the names of local files that are not there."""
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
        """Return the path of the image in ``row``."""
        return self.path_of(self.names[row])

    def path_of(self, name: str) -> str:
        """Return the path of the image with this file name."""
        return osp.join(self.root, str(name))

    def name_of(self, path: str) -> str:
        """Return the name of the image with this path, which lies in the root."""
        return path.removeprefix(osp.join(self.root, ''))

    def row_of(self, image_id: int) -> int:
        """Return the row of an image id.

        Raises:
            KeyError: The pool has no such image.
        """
        row = self.find(image_id, '')
        if row is None:
            raise KeyError(f'image {image_id} is not in the pool')
        return row

    def find(self, image_id: int, path: str) -> int | None:
        """Return the row of an image of the data set, None where the pool does not have it.

        Args:
            image_id: Its id.
            path: Its file.
        """
        row = int(np.searchsorted(self.ids, image_id))
        return row if row < len(self.ids) and self.ids[row] == image_id else None

    def subset(self, rows: np.ndarray) -> ImagePool:
        """Return the pool of some rows ``(n,)``, rising; it keeps the fingerprint."""
        pool = copy.copy(self)
        pool.ids, pool.names = self.ids[rows], self.names[rows]
        return pool

    def draw(
        self,
        number: int,
        shown: Collection[int],
        rng: np.random.Generator,
        taken: Sequence[str] = (),
        avoid: Sequence[str] = (),
    ) -> list[str]:
        """Draw names of images other than those that show what the expression describes.

        A pool with too few images gives some of them twice.

        Args:
            number: How many names.
            shown: Rows of images that are never drawn, such as the target's.
            rng: The sample's generator.
            taken: Names that are in the mosaic already.
            avoid: Names to use only if no others are left: their images may show the referent.

        Raises:
            ValueError: The pool holds no other image.
        """
        if len(self) <= max(1, len(shown)):
            raise ValueError(f'a mosaic needs another image, but the pool holds {len(self)}')
        taken, avoid = set(taken), set(avoid)
        # A handful more than needed is drawn, so that a large pool is never enumerated.
        size = min(len(self), number + len(taken) + len(avoid) + max(1, len(shown)))
        candidates = rng.choice(len(self), size=size, replace=False)
        free = [row for row in candidates if row not in shown and self.names[row] not in taken]
        free = sorted(free, key=lambda row: self.names[row] in avoid)[:number]
        while len(free) < number:
            row = int(rng.integers(len(self)))
            if row not in shown:
                free.append(row)
        return [str(self.names[row]) for row in free]


class FolderPool(ImagePool):
    """The images of a folder and its sub-folders, in the order of their names.

    Names are paths inside the folder with ``/``. Hidden files and folders are passed over. Links
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
                f'the folder of negatives {root} is missing or holds fewer than two images'
            )
        names = sorted(files)
        self._rows_of: dict[tuple[str, int], list[int]] = {}  # by name without folder, and size
        for row, name in enumerate(names):
            self._rows_of.setdefault((osp.basename(name), files[name]), []).append(row)
        super().__init__(root, np.arange(len(names)), names, _digest_of(files))
        self._images_fingerprint = self.fingerprint

    def find(self, image_id: int, path: str) -> int | None:
        """Return the row of the file of the same name and size, None where there is none.

        Of several such files it is the one in folders of the same names.
        """
        rows = self._rows_of.get((osp.basename(path), osp.getsize(path)))
        if rows is None or len(rows) == 1:
            return rows and rows[0]
        return max(rows, key=lambda row: _likeness(str(self.names[row]), path))

    def subset(self, rows: np.ndarray) -> FolderPool:
        """Return the pool of some rows ``(n,)``, rising; it keeps the fingerprint."""
        pool = super().subset(rows)
        new = {int(row): i for i, row in enumerate(rows)}
        kept = {key: [new[row] for row in of if row in new] for key, of in self._rows_of.items()}
        pool._rows_of = {key: of for key, of in kept.items() if of}
        return pool


class BankImages:
    """The image table of a bank: candidates first, then other images of the data set.

    An expression's own image is needed for its similarity to it, also where negatives come from a
    folder. If the folder holds that very file (same name and size), it is one image, and never the
    negative of its own expressions.

    Args:
        pool: Images of the data set.
        folder: Folder of the negatives; None where they are the data set's own images.

    Attributes:
        ids: Image ids ``(I,)``; of a folder's images -1 - row, as ids of data sets are not
            negative.
        names: File names ``(I,)``.
        num_candidates: How many of the images, from the first on, can become negatives.
        rows: Row of every image of the data set.
    """

    def __init__(self, pool: ImagePool, folder: str | None = None) -> None:
        if folder is None:
            self._parts = [(pool, range(len(pool)))]
            self.ids, self.names, self.num_candidates = pool.ids, pool.names, len(pool)
            self.rows = np.arange(len(pool))
            return
        others = folder_pool(folder)
        found = [others.find(image_id, pool.path(row)) for row, image_id in enumerate(pool.ids)]
        self.rows = np.array([-1 if row is None else row for row in found], np.int64)
        added = np.flatnonzero(self.rows < 0)
        self.rows[added] = len(others) + np.arange(len(added))
        self._parts = [(others, range(len(others))), (pool, added)]
        self.ids = np.concatenate([-1 - others.ids, pool.ids[added]])
        self.names = np.concatenate([others.names, pool.names[added]])
        self.num_candidates = len(others)

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, row: int) -> str:
        """Return the path of the image in ``row``."""
        (pool, rows), *rest = self._parts
        if row >= len(rows) and rest:
            pool, row, rows = rest[0][0], row - len(rows), rest[0][1]
        return pool.path(rows[row])


def _likeness(name: str, path: str) -> tuple[int, int]:
    """How many parts two paths share from the last one on; and less, the more ``name`` has."""
    parts = zip(reversed(name.split('/')), reversed(path.split('/')))
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], parts))
    return same, -name.count('/')


def _is_local(path: str) -> bool:
    return '://' not in path  # MMEngine's rule for file backends


def _digest_of(sizes: dict[str, int]) -> str:
    """Return a digest of files by name: their sizes in bytes."""
    return hashlib.sha256(repr(sorted(sizes.items())).encode()).hexdigest()


@lru_cache(maxsize=8)
def folder_pool(root: str) -> FolderPool:
    """Return the pool of a folder, listed once in each process."""
    return FolderPool(root)


def bank_fingerprint(pool: ImagePool, folder: str | None = None) -> str:
    """Return what a bank is checked against.

    Args:
        pool: Images of the data set.
        folder: Folder of the negatives; None where they are the data set's own images.
    """
    if folder is None:
        return pool.fingerprint
    both = f'{pool.fingerprint} {folder_pool(folder).fingerprint}'
    return hashlib.sha256(both.encode()).hexdigest()
