"""Keeps unit vectors on disk, so that nothing is embedded twice by the same tower.

A vector is found by what it was made of: its folder is named after the tower (weights,
preprocessing, versions), its key is a digest of the image file's *content* or of the text. So
another ``keep``, or another data set with the same images or texts, finds it, and a file that
changed does not, whatever its name, size or time.

A pack is one safetensors file of some vectors. It is written under another name and renamed, never
changed, and named after its keys: processes that write at the same time write different packs, or
the same. Packs that were not used for longest go when all take more than a limit. No run fails by
the cache: the folder may be deleted at any time, be full, or be one that can only be read.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nemo_mmseg.utils.atomic_write import atomic_write

# Bytes of all packs: one million images and texts of 512 numbers take 2 GB.
LIMIT = 4 * 2**30
KEY_BYTES = 16
# A part that a killed writer left is removed after a day.
_STALE = 24 * 3600


def text_key(text: str) -> bytes:
    """Key of a text."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES, person=b'text').digest()


def image_key(content: bytes) -> bytes:
    """Key of an image file, by its content (about 1 GB/s)."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES, person=b'image').digest()


class EmbeddingCache:
    """Vectors of one tower, by key.

    What other processes add after it was opened is not seen.

    Args:
        folder: Folder of the caches of all towers; it is made.
        tower: Digest of everything but the input that the vectors depend on.
        limit: Bytes that the packs of all towers may take. Defaults to 4 GiB.
    """

    def __init__(self, folder: str | Path, tower: str, limit: int = LIMIT) -> None:
        self.root = Path(folder)
        self.folder = self.root / f'tower-{tower[:32]}'
        self.limit = limit
        self._writable = True
        self._added = 0
        self._packs = sorted(self.folder.glob('pack-*.safetensors'))
        self._used: set[int] = set()
        parts = [self._keys_of(pack) for pack in self._packs]
        sizes = np.array([len(part) for part in parts], np.int64)
        heads = np.concatenate([*parts, np.zeros(0, np.uint64)])
        # A key's first half says where to look; the whole is compared there.
        order = np.argsort(heads, kind='stable')
        self._heads = heads[order]
        self._pack = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)[order]
        self._row = np.concatenate([*map(np.arange, sizes), np.zeros(0, int)])[order]
        self._row = self._row.astype(np.int32)

    def __len__(self) -> int:
        return len(self._heads)

    @staticmethod
    def _keys_of(pack: Path) -> np.ndarray:
        try:
            with safe_open(pack, 'np') as file:
                return _heads(file.get_tensor('keys'))
        except (OSError, SafetensorError, ValueError):  # damaged, or another process removed it
            return np.zeros(0, np.uint64)

    def find(self, keys: Sequence[bytes]) -> dict[int, np.ndarray]:
        """Vectors of those keys that are there.

        Args:
            keys: n keys.

        Returns:
            Vectors (D,) float32 by index of the key.
        """
        if not len(self._heads):
            return {}
        table = np.frombuffer(b''.join(keys), np.uint8).reshape(-1, KEY_BYTES)
        wanted = _heads(table)
        at = np.minimum(self._heads.searchsorted(wanted), len(self._heads) - 1)
        there = np.flatnonzero(self._heads[at] == wanted)
        packs = self._pack[at[there]]
        found = {}
        for pack in np.unique(packs).tolist():
            which = there[packs == pack]
            for index, key, vector in self._read(pack, which, self._row[at[which]]):
                if key == keys[index]:
                    found[index] = vector
        return found

    def _read(
        self, pack: int, indices: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[int, bytes, np.ndarray]]:
        """Index, key and vector of the rows of a pack that are as they were written."""
        path = self._packs[pack]
        try:
            if pack not in self._used:
                self._used.add(pack)
                with suppress(OSError):  # another user's, or a disk that is not written to
                    os.utime(path)
            # Of torch's kind: those tensors are maps of the file, and its other rows are not read.
            with safe_open(path, 'pt') as file:
                keys, vectors, sums = (
                    file.get_tensor(name).numpy() for name in ('keys', 'vectors', 'sums')
                )
            for index, row in zip(indices.tolist(), rows.tolist()):
                vector = vectors[row].copy()
                if zlib.crc32(vector) == sums[row]:
                    yield index, keys[row].tobytes(), vector
        except (OSError, SafetensorError, ValueError, IndexError):
            return

    def add(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Write a pack. Where that fails the run goes on without.

        Args:
            keys: n keys.
            vectors: (n, D) float32.
        """
        if not len(keys) or not self._writable:
            return
        text = b''.join(keys)
        vectors = np.ascontiguousarray(vectors, np.float32)
        name = hashlib.blake2b(text, digest_size=16).hexdigest()
        path = self.folder / f'pack-{name}.safetensors'
        tensors = dict(
            keys=np.frombuffer(text, np.uint8).reshape(-1, KEY_BYTES),
            vectors=vectors,
            sums=np.array([zlib.crc32(vector) for vector in vectors], np.int64),
        )
        try:
            with atomic_write(path) as part:
                save_file(tensors, part)
                self._added += part.stat().st_size
        except (OSError, SafetensorError) as error:
            self._writable = False
            print_log(f'embeddings are not cached in {self.folder}: {error}', 'current')
        if self._added > self.limit // 16:
            self.trim()

    def trim(self) -> None:
        """Remove the packs that were not used for longest, down to the limit, and dead parts.

        The folder may be one that the user keeps other things in: nothing else is touched.
        """
        self._added = 0
        packs, total = [], 0
        for path in self._files():
            try:
                stat = path.stat()
                if path.suffix == '.tmp' and time.time() - stat.st_mtime > _STALE:
                    path.unlink()
                elif path.suffix == '.safetensors':
                    packs.append((stat.st_mtime, str(path), stat.st_size))
                    total += stat.st_size
            except OSError:  # another process was faster
                continue
        for _, path, size in sorted(packs):
            if total <= self.limit:
                break
            with suppress(OSError):  # gone already, or another user's
                Path(path).unlink()
            total -= size

    def _files(self) -> list[Path]:
        """Packs and parts of all towers."""
        try:
            names = 'pack-*.safetensors', '.pack-*.safetensors.*.tmp'
            return [path for name in names for path in self.root.glob(f'tower-*/{name}')]
        except OSError:  # another process removes a folder while it is listed
            return []


def _heads(keys: np.ndarray) -> np.ndarray:
    """First halves (n,) uint64 of keys (n, 16) uint8."""
    return np.ascontiguousarray(keys[:, :8]).view('<u8')[:, 0]
