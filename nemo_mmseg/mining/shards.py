"""Unit vectors on disk, in shards that are written whole and checked before they are used."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nemo_mmseg.utils.atomic_write import atomic_write


class ShardStore:
    """Vectors of a list of items, a fixed number of items a file.

    What a shard holds depends on the items and the settings alone, so any process may write any
    shard, and a run that was killed goes on with those that are there.

    Args:
        folder: Where the files lie; it is made.
        name: First part of the file names, e.g. ``'images'``.
        num_items: Number of items N in all shards.
        shard_size: Items a shard; the last one may hold fewer.
        digest: Digest of everything the vectors depend on. A shard with another one is not used.
    """

    def __init__(
        self, folder: str | Path, name: str, num_items: int, shard_size: int, digest: str
    ) -> None:
        self.folder = Path(folder)
        self.name = name
        self.num_items = num_items
        self.shard_size = shard_size
        self.digest = digest
        self.folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return -(-self.num_items // self.shard_size)

    def items(self, shard: int) -> range:
        """The items of a shard."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.num_items))

    def path(self, shard: int) -> Path:
        """File of a shard."""
        return self.folder / f'{self.name}-{shard:05d}.safetensors'

    def write(self, shard: int, vectors: np.ndarray) -> None:
        """Write a shard under another name, then rename it.

        Args:
            shard: Index of the shard.
            vectors: Unit vectors (n, D) of its items.
        """
        from safetensors.numpy import save_file

        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        path = self.path(shard)
        # One key: the order of several in the file is random.
        seal = {'nemo_mmseg': self._seal(shard, vectors)}
        with atomic_write(path) as part:
            save_file({'vectors': vectors}, part, metadata=seal)

    def read(self, shard: int) -> np.ndarray | None:
        """The vectors (n, D) float32 of a shard; None where it is missing, damaged or foreign."""
        from safetensors import SafetensorError, safe_open

        if not self.path(shard).is_file():
            return None
        try:
            with safe_open(self.path(shard), framework='numpy') as file:
                vectors = file.get_tensor('vectors')
                seal = (file.metadata() or {}).get('nemo_mmseg')
        except (SafetensorError, OSError):
            return None
        complete = len(vectors) == len(self.items(shard))
        return vectors if complete and seal == self._seal(shard, vectors) else None

    def blocks(self) -> Iterator[np.ndarray]:
        """Vectors (n, D) float32 of one shard after the other, all of which must be there."""
        for shard in range(len(self)):
            yield self.read(shard)

    def read_all(self) -> np.ndarray:
        """Vectors (N, D) float32 of all shards, which must be there; never twice in memory."""
        table = None
        for shard, vectors in enumerate(self.blocks()):
            if table is None:
                table = np.empty((self.num_items, vectors.shape[1]), np.float32)
            table[self.items(shard).start : self.items(shard).stop] = vectors
        return table

    def missing(self, shards: range) -> list[int]:
        """Those of the given shards that have to be written (again)."""
        return [shard for shard in shards if self.read(shard) is None]

    def _seal(self, shard: int, vectors: np.ndarray) -> str:
        content = hashlib.sha256(np.ascontiguousarray(vectors)).hexdigest()
        seal = dict(content=content, first=self.items(shard).start, digest=self.digest)
        return json.dumps(seal, sort_keys=True)


@contextmanager
def busy(folder: Path, every: float = 10.0) -> Iterator[None]:
    """Touch a file again and again, so that others see that something goes on.

    Args:
        folder: Where the file is.
        every: Seconds between two touches. Defaults to 10.
    """
    done = threading.Event()

    def touch() -> None:
        while not done.wait(every):
            (folder / 'busy').touch()

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def listing(folder: Path) -> list[tuple]:
    """Names, sizes and times of the files in a folder that others change meanwhile."""
    entries = []
    for path in folder.glob('*/*'):
        try:
            entries.append((path.name, path.stat().st_size, path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue
    return sorted(entries)


def difference(folder: Path, settings: dict[str, Any]) -> str:
    """Which settings another run's folder was made with."""
    try:
        others = json.loads((folder / 'settings.json').read_text())
    except (OSError, ValueError):
        return 'unknown ones'
    keys = [key for key in settings if others.get(key) != settings[key]]
    return ', '.join(f'{key}={others.get(key)!r}' for key in keys)
