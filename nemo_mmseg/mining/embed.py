"""Embeds images and expressions, and writes their vectors in shards on disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nemo_mmseg.utils.dist import ordered_map

from .clip_embedder import ClipEmbedder
from .shards import ShardStore
from .vectors import EmbeddingCache, image_key, text_key

# How many texts further on are read while one waits for others of its length; the shards of all of
# them are in memory.
_LONGEST_WAIT = 8192


class _ImageFiles(Dataset):
    """Rows, preprocessed images and keys; a file that cannot be read is returned as an error."""

    def __init__(self, pool: Any, preprocess: Callable) -> None:
        self.pool = pool
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, row: int) -> tuple[int, Tensor | ValueError, bytes]:
        path = self.pool.path(row)
        try:
            with open(path, 'rb') as file:
                # Of what is decoded: the file may have changed since the cache was asked.
                key = image_key(file.read())
                file.seek(0)
                with Image.open(file) as image:
                    return row, self.preprocess(image.convert('RGB')), key
        except (OSError, SyntaxError, ValueError) as error:
            # Raised where the batch arrives: a worker would wrap it into its own traceback.
            return row, _unreadable(path, error), b''


def _unreadable(path: str, error: Exception) -> ValueError:
    return ValueError(f'cannot read the image {path}: {error}')


def _stack(
    batch: list[tuple[int, Tensor | ValueError, bytes]],
) -> tuple[list[int], Tensor | ValueError, list[bytes]]:
    rows, images, keys = zip(*batch)
    bad = next((image for image in images if isinstance(image, ValueError)), None)
    return list(rows), torch.stack(images) if bad is None else bad, list(keys)


class _Filling:
    """Shards being filled: with vectors from the cache, then with those that were computed.

    Args:
        store: Where full shards go.
        shards: The shards to fill.
        keys_of: Cache keys of some items.
        cache: Where known vectors come from and new ones go; None for none.
        advance: Called with the number of items done since its last call.
    """

    def __init__(
        self,
        store: ShardStore,
        shards: Iterable[int],
        keys_of: Callable[[Iterable[int]], list[bytes]],
        cache: EmbeddingCache | None,
        advance: Callable[[int], Any],
    ) -> None:
        self.store = store
        self.shards = shards
        self.keys_of = keys_of
        self.cache = cache
        self.advance = advance
        self._vectors: dict[int, np.ndarray] = {}
        self._keys: dict[int, list[bytes]] = {}
        self._missing: dict[int, list[int]] = {}
        self._left: dict[int, int] = {}

    def missing(self) -> Iterator[int]:
        """Items to compute; shards are looked at one after the other as they are asked for."""
        for shard in self.shards:
            items = self.store.items(shard)
            known = {}
            if self.cache is not None:
                self._keys[shard] = self.keys_of(items)
                known = self.cache.find(self._keys[shard])
            self._vectors.update((items[index], vector) for index, vector in known.items())
            missing = [item for index, item in enumerate(items) if index not in known]
            self._missing[shard], self._left[shard] = missing, len(missing)
            self.advance(len(known))
            if missing:
                yield from missing
            else:
                self._write(shard)

    def take(
        self, items: Sequence[int], vectors: np.ndarray, keys: Sequence[bytes] | None = None
    ) -> None:
        """Put computed vectors (n, D) where they belong, and write the shards they complete.

        ``keys`` are those of what they were computed from; None where it cannot have changed.
        """
        self.advance(len(items))
        for place, (item, vector) in enumerate(zip(items, vectors)):
            self._vectors[item] = vector
            shard = item // self.store.shard_size
            if keys is not None and self.cache is not None:
                self._keys[shard][item - self.store.items(shard).start] = keys[place]
            self._left[shard] -= 1
            if not self._left[shard]:
                self._write(shard)

    def _write(self, shard: int) -> None:
        items, missing = self.store.items(shard), self._missing.pop(shard)
        vectors = np.stack([self._vectors.pop(item) for item in items])
        self.store.write(shard, vectors)
        keys = self._keys.pop(shard, None)
        if self.cache is not None and missing:
            new = np.array(missing) - items.start
            self.cache.add([keys[index] for index in new], vectors[new])


def _batches(items: Iterable[int], size: int) -> Iterator[list[int]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def embed_images(
    embedder: ClipEmbedder,
    pool: Any,
    store: ShardStore,
    shards: Sequence[int],
    num_workers: int = 2,
    advance: Callable[[int], Any] = lambda count: None,
    cache: EmbeddingCache | None = None,
) -> None:
    """Embed the images of some shards and write them.

    Args:
        embedder: The model.
        pool: The images: ``len(pool)``, ``pool.path(row)``.
        store: Where the shards go; item i is image i of the pool.
        shards: The shards to write.
        num_workers: Processes that decode; 0 decodes here. Defaults to 2.
        advance: Called with the number of images done since its last call.
        cache: Vectors that are known. Defaults to none.

    Raises:
        ValueError: An image cannot be read; the message has its path.
    """

    def key_of(row: int) -> bytes:
        path = pool.path(row)
        try:
            return image_key(Path(path).read_bytes())
        except OSError as error:
            raise _unreadable(path, error) from None

    def keys_of(rows: Iterable[int]) -> list[bytes]:
        # Reading and hashing release the interpreter: a slow disk is waited for once, not per file.
        with ThreadPoolExecutor(8) as pool_of_threads:
            return list(pool_of_threads.map(key_of, rows))

    filling = _Filling(store, shards, keys_of, cache, advance)
    missing = filling.missing()
    first = next(missing, None)
    if first is None:
        return
    loader = DataLoader(
        _ImageFiles(pool, embedder.preprocess),
        batch_sampler=_batches(chain([first], missing), embedder.batch_size),
        num_workers=num_workers,
        collate_fn=_stack,
        pin_memory=torch.device(embedder.device).type == 'cuda',
        # Its own generator: the loader would draw a seed from the global one.
        generator=torch.Generator(),
    )

    def embed(
        batch: tuple[list[int], Tensor | ValueError, list[bytes]],
    ) -> tuple[list[int], np.ndarray, list[bytes]]:
        rows, images, keys = batch
        if isinstance(images, ValueError):
            raise images
        return rows, embedder.images(images), keys

    for done in ordered_map(embed, loader, embedder.device):
        filling.take(*done)


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Each text once, short ones first, so that texts of one length stand together.

    Args:
        texts: Expressions (E,), with repetitions.

    Returns:
        The distinct texts by number of words, characters and then alphabet, and the index (E,) of
        every given text among them.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text.split()), len(text), text))
    row = {text: i for i, text in enumerate(distinct)}
    return distinct, np.fromiter((row[text] for text in texts), np.int64, len(texts))


def embed_texts(
    embedder: ClipEmbedder,
    texts: Sequence[str],
    store: ShardStore,
    shards: Sequence[int],
    advance: Callable[[int], Any] = lambda count: None,
    cache: EmbeddingCache | None = None,
) -> None:
    """Embed the texts of some shards and write them.

    Args:
        embedder: The model.
        texts: All texts; see :func:`distinct_texts`.
        store: Where the shards go; item i is text i.
        shards: The shards to write.
        advance: Called with the number of texts done since its last call.
        cache: Vectors that are known. Defaults to none.
    """

    def keys_of(items: Iterable[int]) -> list[bytes]:
        return [text_key(texts[item]) for item in items]

    filling = _Filling(store, shards, keys_of, cache, advance)
    batches = _by_length(embedder, texts, filling.missing())
    encoded = ordered_map(
        lambda batch: (batch[0], embedder.encode(batch[1])), batches, embedder.device
    )
    for items, vectors in encoded:
        filling.take(items, vectors)


def _by_length(
    embedder: ClipEmbedder, texts: Sequence[str], items: Iterable[int]
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of texts of one length: items and token ids (n, length)."""
    size = embedder.batch_size
    # By length: item and ids.
    waiting: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)

    def batch(length: int) -> tuple[list[int], Tensor]:
        some, ids = zip(*waiting.pop(length))
        return list(some), torch.stack(ids)

    for some in _batches(items, size):
        for item, ids, length in zip(some, *embedder.tokenize([texts[item] for item in some])):
            waiting[length].append((item, ids[:length].clone()))
            if len(waiting[length]) == size:
                yield batch(length)
        for length in [n for n, w in waiting.items() if some[-1] - w[0][0] > _LONGEST_WAIT]:
            yield batch(length)
    for length in sorted(waiting):
        yield batch(length)
