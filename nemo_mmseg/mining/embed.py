"""Embeds the images and expressions whose vectors are not known yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nemo_mmseg.negatives.pool import BankImages
from nemo_mmseg.utils.dist import end_with_parent, ordered_map
from nemo_mmseg.utils.images import decode_image

from .clip_embedder import ClipEmbedder
from .vectors import KEY_BYTES, VectorStore, image_key, text_keys

# Items that are looked up together, and embedded by one rank.
BLOCK_SIZE = 512


def blocks_of(count: int) -> list[range]:
    """Return the blocks of a number of items, each of which one rank embeds."""
    return [range(i, min(i + BLOCK_SIZE, count)) for i in range(0, count, BLOCK_SIZE)]


def _batches(items: Iterable[int], size: int) -> Iterator[list[int]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class _ImageFiles(Dataset):
    """Preprocessed images and their keys; a file that cannot be read is returned as an error."""

    def __init__(self, images: BankImages, preprocess: Callable) -> None:
        self.images = images
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[int, Tensor | Exception, np.ndarray]:
        path = self.images.path(row)
        try:
            # The key is of what is decoded: the file may have changed since it was looked up.
            content = Path(path).read_bytes()
            image = Image.fromarray(decode_image(content, path)[..., ::-1])
            return row, self.preprocess(image), image_key(content)
        except (OSError, ValueError) as error:
            # Raised where the batch arrives: a worker would wrap it into its own traceback.
            return row, error, image_key(b'')


def _stack(batch: list[tuple[int, Tensor | Exception, np.ndarray]]) -> tuple:
    rows, images, keys = zip(*batch)
    bad = [image for image in images if isinstance(image, Exception)]
    return list(rows), bad[0] if bad else torch.stack(images), np.stack(keys)


def image_keys(images: BankImages, rows: range) -> np.ndarray:
    """Return the keys ``(n, 16)`` uint8 of some images."""
    # Reading and hashing release the interpreter: a slow disk is waited for once, not per file.
    with ThreadPoolExecutor(8) as threads:
        contents = threads.map(lambda row: image_key(Path(images.path(row)).read_bytes()), rows)
        return np.stack(list(contents))


def embed_images(
    embedder: ClipEmbedder,
    images: BankImages,
    blocks: Sequence[range],
    store: VectorStore,
    num_workers: int = 2,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Embed those images of some blocks that the store does not have.

    Args:
        embedder: The model.
        images: The images.
        blocks: Rows, see :func:`blocks_of`.
        store: Where known vectors are, and new ones go.
        num_workers: Processes that decode; 0 decodes here. Defaults to 2.
        advance: Called with the number of images done since its last call.

    Returns:
        Keys ``(I, 16)`` uint8 of the images of these blocks, as they were embedded.

    Raises:
        ValueError, OSError: An image cannot be read; the message has its path.
    """
    keys = np.zeros((len(images), KEY_BYTES), np.uint8)

    def missing() -> Iterator[int]:
        for block in blocks:
            keys[block] = image_keys(images, block)
            known = store.find(keys[block])
            advance(len(known))
            yield from (row for i, row in enumerate(block) if i not in known)

    def embed(batch: tuple) -> tuple[list[int], np.ndarray, np.ndarray]:
        rows, tensors, found = batch
        if isinstance(tensors, Exception):
            raise tensors
        return rows, found, embedder.images(tensors)

    todo = missing()
    first = next(todo, None)
    if first is None:  # nothing to start workers for
        return keys
    loader = DataLoader(
        _ImageFiles(images, embedder.preprocess),
        batch_sampler=_batches(chain([first], todo), embedder.batch_size),
        num_workers=num_workers,
        collate_fn=_stack,
        pin_memory=torch.device(embedder.device).type == 'cuda',
        # Its own generator: the loader would draw a seed from the global one.
        generator=torch.Generator(),
        worker_init_fn=end_with_parent,
    )
    with store:
        for rows, found, vectors in ordered_map(embed, loader, embedder.device):
            keys[rows] = found
            store.add(found, vectors)
            advance(len(rows))
    return keys


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return each text once, short ones first, so that texts of one length stand together.

    Args:
        texts: Expressions ``(E,)``, with repetitions.

    Returns:
        The distinct texts by number of words, characters and then alphabet, and the index ``(E,)``
        of every given text among them.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text.split()), len(text), text))
    row = {text: i for i, text in enumerate(distinct)}
    return distinct, np.fromiter((row[text] for text in texts), np.int64, len(texts))


def embed_texts(
    embedder: ClipEmbedder,
    texts: Sequence[str],
    blocks: Sequence[range],
    store: VectorStore,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Embed those texts of some blocks that the store does not have.

    Args:
        embedder: The model.
        texts: All texts; see :func:`distinct_texts`.
        blocks: Rows, see :func:`blocks_of`.
        store: Where known vectors are, and new ones go.
        advance: Called with the number of texts done since its last call.
    """

    def missing() -> Iterator[int]:
        for block in blocks:
            known = store.find(text_keys(texts[i] for i in block))
            advance(len(known))
            yield from (row for i, row in enumerate(block) if i not in known)

    def embed(batch: tuple[list[int], Tensor]) -> tuple[list[int], np.ndarray]:
        rows, ids = batch
        return rows, embedder.encode(ids)

    batches = _by_length(embedder, texts, missing())
    with store:
        for rows, vectors in ordered_map(embed, batches, embedder.device):
            store.add(text_keys(texts[row] for row in rows), vectors)
            advance(len(rows))


def _by_length(
    embedder: ClipEmbedder, texts: Sequence[str], rows: Iterable[int]
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of texts of one length: rows and token ids ``(n, length)``."""
    # By length: row and ids.
    waiting: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)

    def batch(length: int) -> tuple[list[int], Tensor]:
        some, ids = zip(*waiting.pop(length))
        return list(some), torch.stack(ids)

    for some in _batches(rows, embedder.batch_size):
        for row, ids, length in zip(some, *embedder.tokenize([texts[row] for row in some])):
            waiting[length].append((row, ids[:length].clone()))
            if len(waiting[length]) == embedder.batch_size:
                yield batch(length)
    for length in sorted(waiting):
        yield batch(length)
