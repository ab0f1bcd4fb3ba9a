"""Images and expressions as unit vectors of an open_clip model, in shards on disk."""

from __future__ import annotations

import copy
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .embedding_cache import EmbeddingCache, image_key, text_key
from .process import ordered_map
from .shards import ShardStore

# Shorter contexts are cut exactly, longer ones at the next multiple of eight: few texts are long,
# and each length has a last batch that is not full.
_EXACT_UP_TO = 16
# A batch's number of rows is a multiple of this: products work off the rows that are left over from
# their own steps in another way, and so with other last bits.
_ROWS = 16
# How many texts further on are read while one waits for others of its length; the shards of all of
# them are in memory.
_LONGEST_WAIT = 8192


class _TextTower(nn.Module):
    """``encode_text`` of an open_clip model as a module, whose tensors a call can swap."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, ids: Tensor) -> Tensor:
        return self.clip.encode_text(ids)


class ClipEmbedder:
    """Turns batches of images and of sentences into unit vectors of one open_clip model.

    open_clip runs its text tower over the whole context (77 positions) however short the sentences
    are. Where the tower is causal and reads the end-of-text token, positions after that token
    change nothing, and a batch holds texts of one length and is cut there.

    The last bits of a vector depend on the shape of its batch, but not on the others in it or on
    its place. So every batch has the same number of rows, short ones are filled up, and a vector is
    a function of its image, or text, alone: it does not matter what else a run embeds.

    Args:
        model: open_clip's name of the architecture.
        pretrained: Tag or file of the weights.
        device: Where to compute. On a GPU under float16 autocast.
        cut_context: Whether to cut the context where that is exact. Defaults to True.
        batch_size: Images, or texts, a batch. Defaults to 64.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None,
        device: str = 'cpu',
        cut_context: bool = True,
        batch_size: int = 64,
    ) -> None:
        from nemo_mmseg.utils.clip import clip_preprocess, load_clip, load_clip_tokenizer

        self.device = device
        self.batch_size = batch_size
        self.clip = load_clip(model, pretrained, device)
        self.tokenizer = load_clip_tokenizer(model)
        self.preprocess = clip_preprocess(model, self.clip)
        self._text_of_thread = threading.local()
        self._cuttable = self._find_cuttable() if cut_context else None

    def _find_cuttable(self) -> str | None:
        """Prefix of the tensors that a cut has to shorten, None where a cut is not exact."""
        for prefix, tower in (
            ('clip.', self.clip),
            ('clip.text.', getattr(self.clip, 'text', None)),
        ):
            pool = getattr(tower, 'text_pool_type', getattr(tower, 'pool_type', None))
            causal = getattr(tower, 'attn_mask', None) is not None
            position = getattr(tower, 'positional_embedding', None)
            plain = position is not None and getattr(tower, 'cls_emb', None) is None
            if causal and plain and pool in ('argmax', 'eos'):
                return prefix
        return None

    def _text_tower(self) -> _TextTower:
        """This thread's text tower: swapping tensors is not safe when threads share modules."""
        if not hasattr(self._text_of_thread, 'tower'):
            tensors = [*self.clip.parameters(), *self.clip.buffers()]
            # The copy has its own modules and the same tensors.
            clip = copy.deepcopy(self.clip, memo={id(t): t for t in tensors})
            self._text_of_thread.tower = _TextTower(clip)
        return self._text_of_thread.tower

    def _run(self, call: Callable, batch: Tensor) -> np.ndarray:
        """Unit vectors (n, D) of n <= batch_size inputs, computed as a full batch."""
        count = len(batch)
        whole = -(-self.batch_size // _ROWS) * _ROWS
        batch = batch.to(self.device, non_blocking=True)
        if count < whole:
            batch = torch.cat([batch, batch[-1:].expand(whole - count, *batch.shape[1:])])
        kind = torch.device(self.device).type
        with (
            torch.inference_mode(),
            torch.autocast(kind, dtype=torch.float16, enabled=kind == 'cuda'),
        ):
            vectors = call(batch)[:count]
        # Normalised outside of autocast: a float16 norm would cost three digits.
        return nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()

    def images(self, batch: Tensor) -> np.ndarray:
        """Unit vectors (n, D) float32 of preprocessed images (n, 3, H, W), n <= batch_size."""
        return self._run(self.clip.encode_image, batch)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Token ids (n, T) int64 of texts, and how many of the T each needs."""
        ids = self.tokenizer(list(texts))
        if self._cuttable is None:
            return ids, [ids.shape[1]] * len(ids)
        lengths = (ids == self.tokenizer.eot_token_id).int().argmax(dim=-1) + 1
        longer = (-(-lengths // 8) * 8).clamp(max=ids.shape[1])
        return ids, torch.where(lengths > _EXACT_UP_TO, longer, lengths).tolist()

    def encode(self, ids: Tensor) -> np.ndarray:
        """Unit vectors (n, D) float32 of token ids (n, length) of one length, n <= batch_size."""
        tower = self._text_tower()
        length = ids.shape[1]
        if self._cuttable is None:
            return self._run(tower, ids)
        named = dict(tower.named_parameters()) | dict(tower.named_buffers())
        position = self._cuttable + 'positional_embedding'
        mask = self._cuttable + 'attn_mask'
        shorter = {position: named[position][:length], mask: named[mask][:length, :length]}
        return self._run(lambda batch: torch.func.functional_call(tower, shorter, (batch,)), ids)

    def tower(self) -> dict[str, str]:
        """What a vector depends on beside the weights and the input."""
        return dict(
            # Functions among the steps (open_clip 2) have an address, another one in each process.
            preprocess=re.sub(' at 0x[0-9a-f]+', '', repr(self.preprocess)),
            context=f'cut to {_EXACT_UP_TO} or 8n' if self._cuttable else 'whole',
            batch_size=self.batch_size,
            device=torch.device(self.device).type,
        )


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
