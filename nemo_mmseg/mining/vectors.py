"""Keeps unit vectors on disk, by what they were made of: nothing is embedded twice.

Each encoder (weights, preprocessing, versions, machine) has a folder. A vector's key is a digest of
the image file's *content*, or of the expression. So a run that was killed finds what it has
embedded. Another ``keep``, or another data set with the same images, finds it too. A file that
changed has another key, whatever its name, size or time.

A pack is one safetensors file of some vectors. It is written under another name and renamed, and it
never changes. It is named after its keys, so processes that write at the same time write different
packs, or equal ones. A damaged pack is noticed by its CRC-32 when a process first reads it, and
removed; its vectors are made again.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nemo_mmseg.utils.atomic_write import write_bytes

# Bytes of all packs in a cache. One million images and expressions of 512 numbers take 2 GB.
LIMIT = 4 * 2**30
# Vectors in a pack, and so what a killed process loses at most.
PACK_SIZE = 512
KEY_BYTES = 16
# An index entry holds pack and row in one number.
_MAX_ROWS = 2**20
# What the library raises of a damaged file, or NumPy of arrays of other types and shapes.
_UNREADABLE = OSError, SafetensorError, ValueError, IndexError, TypeError


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """Return the keys ``(n, 16)`` uint8 of texts."""
    digests = (
        hashlib.blake2b(text.encode(), digest_size=KEY_BYTES, person=b'text').digest()
        for text in texts
    )
    return np.frombuffer(b''.join(digests), np.uint8).reshape(-1, KEY_BYTES)


def image_key(content: bytes) -> np.ndarray:
    """Return the key ``(16,)`` uint8 of an image file, by its content (about 1 GB/s)."""
    digest = hashlib.blake2b(content, digest_size=KEY_BYTES, person=b'image').digest()
    return np.frombuffer(digest, np.uint8)


def user_cache() -> Path | None:
    """Return the folder in which runs share vectors; None for a user without a home.

    It is ``$NEMO_MMSEG_CACHE/embeddings``, else ``nemo_mmseg/embeddings`` among the user's caches.
    """
    given = os.environ.get('NEMO_MMSEG_CACHE')
    if given:
        return Path(given, 'embeddings')
    try:
        caches = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    except RuntimeError:
        return None
    return Path(caches, 'nemo_mmseg', 'embeddings')


class VectorStore:
    """Vectors of one encoder, by key.

    They are written to the cache. Where it cannot be written, or what is in use fills it, they are
    written to the work folder. Both are read.

    Args:
        encoder: Digest of everything but the input that the vectors depend on.
        work: Folder of one run.
        cache: Folder that runs share, also of other encoders. Defaults to none.
        limit: Bytes that the packs in ``cache`` may take. Those that were not used for longest are
            removed. Defaults to 4 GiB.
    """

    def __init__(
        self, encoder: str, work: Path, cache: Path | None = None, limit: int = LIMIT
    ) -> None:
        self.cache = cache
        self.limit = limit
        # Vectors are written to the first folder.
        self.folders = [
            root / f'encoder-{encoder[:32]}' for root in (cache, work) if root is not None
        ]
        self._opened = time.time() - 1  # file systems have coarser clocks
        self._added = 0
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._packs: list[Path | None] = []
        self._checked: set[int] = set()
        # Index, sorted by the first half of the keys: that half, and pack and row. The whole key is
        # compared in the pack.
        self._heads, self._places = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self.refresh()

    def __len__(self) -> int:
        return len(self._heads)

    def refresh(self) -> None:
        """Look for packs that were written since the last look, also by other processes."""
        known, heads, places = set(self._packs), [self._heads], [self._places]
        for folder in self.folders:
            for pack in _files(folder, 'pack-*.safetensors'):
                if pack in known:
                    continue
                # A damaged one counts for nothing; its vectors are made, and it is written, again.
                with suppress(*_UNREADABLE), safe_open(pack, 'np') as file:
                    heads.append(_heads(file.get_tensor('keys')))
                    places.append(len(self._packs) * _MAX_ROWS + np.arange(len(heads[-1])))
                    self._packs.append(pack)
        if len(heads) > 1:
            self._heads, self._places = np.concatenate(heads), np.concatenate(places)
            order = np.argsort(self._heads, kind='stable')
            self._heads, self._places = self._heads[order], self._places[order]

    def find(self, keys: np.ndarray) -> dict[int, np.ndarray]:
        """Find the vectors of those keys that are there.

        Args:
            keys: ``(n, 16)`` uint8.

        Returns:
            Vectors ``(D,)`` float32 by index of the key.
        """
        heads = _heads(keys)
        at = np.searchsorted(self._heads, heads)
        there = np.flatnonzero(at < np.searchsorted(self._heads, heads, side='right'))
        packs, rows = np.divmod(self._places[at[there]], _MAX_ROWS)
        found = {}
        for pack in np.unique(packs).tolist():
            which = packs == pack
            try:
                made_of, vectors = self._read(pack, rows[which])
            except _UNREADABLE as error:
                self._forget(pack, damaged=not isinstance(error, OSError))
                continue
            same = (made_of == keys[there[which]]).all(axis=1)
            found.update(zip(there[which][same].tolist(), vectors[same]))
        return found

    def read(self, keys: np.ndarray) -> np.ndarray | None:
        """Return the vectors ``(n, D)`` float32 of some keys; None where one is missing."""
        found = self.find(keys)
        if len(found) < len(keys):
            self.refresh()
            found = self.find(keys)
        return np.stack([found[i] for i in range(len(keys))]) if len(found) == len(keys) else None

    def _read(self, pack: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys and vectors in some rows of a pack, which is checked the first time."""
        path = self._packs[pack]
        # Of torch's kind: those tensors are maps of the file, and its other rows are not read.
        with safe_open(path, 'pt') as file:
            keys, vectors = (file.get_tensor(name).numpy() for name in ('keys', 'vectors'))
            if pack not in self._checked:
                same = (file.metadata() or {}).get('crc32') == _checksum(keys, vectors)
                same &= keys.shape == (len(vectors), KEY_BYTES) and vectors.dtype == np.float32
                if not same:
                    raise ValueError('damaged')
                self._checked.add(pack)
                with suppress(OSError):  # another user's, or a disk that is not written to
                    os.utime(path)
            return keys[rows], vectors[rows]

    def _forget(self, pack: int, damaged: bool) -> None:
        left = self._places // _MAX_ROWS != pack
        self._heads, self._places = self._heads[left], self._places[left]
        with suppress(OSError):  # of a pack that cannot be removed the path stays known
            if damaged:
                self._packs[pack].unlink()
            self._packs[pack] = None  # it may be written again

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Keep vectors. They are written when there are enough for a pack, or by :meth:`flush`.

        Args:
            keys: ``(n, 16)`` uint8.
            vectors: ``(n, D)`` float32.
        """
        self._waiting.append((keys, vectors))
        if sum(len(keys) for keys, _ in self._waiting) >= PACK_SIZE:
            self.flush()

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()

    def flush(self) -> None:
        """Write what was added; leaving a ``with`` block does it.

        Raises:
            OSError: Neither the cache nor the work folder can be written.
        """
        if not self._waiting:
            return
        keys, vectors = map(np.concatenate, zip(*self._waiting))
        self._waiting = []
        name = hashlib.blake2b(keys.tobytes(), digest_size=16).hexdigest()
        checksum = {'crc32': _checksum(keys, vectors)}
        content = save(dict(keys=keys, vectors=vectors), metadata=checksum)
        while True:
            try:
                write_bytes(self.folders[0] / f'pack-{name}.safetensors', content)
                break
            except OSError as error:
                if self.cache is None:
                    raise
                self._leave_cache(str(error))
        self._added += len(content)
        if self._added > self.limit // 16:
            self.trim()

    def _leave_cache(self, reason: str) -> None:
        """Write to the work folder from now on."""
        print_log(f'vectors are kept beside the bank, not in {self.cache}: {reason}', 'current')
        self.cache = None
        self.folders.reverse()

    def trim(self) -> None:
        """Remove the packs of the cache that were not used for longest, down to its limit.

        Packs that were used since this store was opened stay. The folder may be one that the user
        keeps other things in, so nothing else is touched.
        """
        self._added = 0
        if self.cache is None:
            return
        packs = []
        for pack in _files(self.cache, 'encoder-*/*pack-*'):  # and parts of killed writers
            with suppress(OSError):  # another process was faster
                packs.append((pack.stat().st_mtime, pack, pack.stat().st_size))
        total = sum(size for *_, size in packs)
        for used, pack, size in sorted(packs):
            if total <= self.limit or used > self._opened:
                break
            with suppress(OSError):  # gone already, or another user's
                pack.unlink()
            total -= size
        if total > self.limit:
            self._leave_cache(f'what is in use takes its {self.limit / 2**30:.1f} GiB')


def _files(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:  # another process removes a folder while it is listed
        return []


def _heads(keys: np.ndarray) -> np.ndarray:
    """First halves ``(n,)`` uint64 of keys ``(n, 16)`` uint8."""
    return np.ascontiguousarray(keys[:, :8]).view('<u8')[:, 0]


def _checksum(keys: np.ndarray, vectors: np.ndarray) -> str:
    return str(zlib.crc32(vectors, zlib.crc32(keys)))
