"""Images and expressions as unit vectors of an open_clip model, in shards on disk."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .process import ordered_map
from .shards import ShardStore


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
    change nothing, and the context is cut at the longest sentence of the batch.

    Args:
        model: open_clip's name of the architecture.
        pretrained: Tag or file of the weights.
        device: Where to compute. On a GPU under float16 autocast.
        cut_context: Whether to cut the context where that is exact. Defaults to True.
    """

    def __init__(
        self, model: str, pretrained: str | None, device: str = 'cpu', cut_context: bool = True
    ) -> None:
        from nemo_mmseg.utils.clip import clip_preprocess, load_clip, load_clip_tokenizer

        self.device = device
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

    def _run(self, call: Callable, *args: Any) -> np.ndarray:
        kind = torch.device(self.device).type
        with (
            torch.inference_mode(),
            torch.autocast(kind, dtype=torch.float16, enabled=kind == 'cuda'),
        ):
            vectors = call(*args)
        # Normalised outside of autocast: a float16 norm would cost three digits.
        return nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()

    def images(self, batch: Tensor) -> np.ndarray:
        """Unit vectors (B, D) float32 of preprocessed images (B, 3, H, W)."""
        return self._run(self.clip.encode_image, batch.to(self.device, non_blocking=True))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (B, D) float32 of sentences; equal lengths save time."""
        ids = self.tokenizer(list(texts))
        tower = self._text_tower()
        if self._cuttable is None:
            return self._run(tower, ids.to(self.device))
        end = self.tokenizer.eot_token_id
        length = int((ids == end).int().argmax(dim=-1).max()) + 1
        named = dict(tower.named_parameters()) | dict(tower.named_buffers())
        position = self._cuttable + 'positional_embedding'
        mask = self._cuttable + 'attn_mask'
        shorter = {position: named[position][:length], mask: named[mask][:length, :length]}
        return self._run(
            torch.func.functional_call, tower, shorter, (ids[:, :length].to(self.device),)
        )


class _ImageFiles(Dataset):
    """Preprocessed images by row; a file that cannot be read is returned as an error."""

    def __init__(self, pool: Any, preprocess: Callable) -> None:
        self.pool = pool
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, row: int) -> Tensor | ValueError:
        path = self.pool.path(row)
        try:
            with Image.open(path) as image:
                return self.preprocess(image.convert('RGB'))
        except (OSError, SyntaxError, ValueError) as error:
            # Raised where the batch arrives: a worker would wrap it into its own traceback.
            return ValueError(f'cannot read the image {path}: {error}')


def _stack(images: list[Tensor | ValueError]) -> Tensor | ValueError:
    return next((i for i in images if isinstance(i, ValueError)), None) or torch.stack(images)


def _batches(store: ShardStore, shards: Iterable[int], batch_size: int) -> list[range]:
    """Batches that never reach over the end of a shard, so that each shard stands for itself."""
    return [
        items[start : start + batch_size]
        for items in map(store.items, shards)
        for start in range(0, len(items), batch_size)
    ]


def _write_shards(
    store: ShardStore, shards: Iterable[int], vectors: Iterator[np.ndarray], advance: Callable
) -> None:
    """Collect the vectors of batches, which come in order, and write each shard when it is full."""
    for shard in shards:
        parts, missing = [], len(store.items(shard))
        while missing:
            parts.append(next(vectors))
            missing -= len(parts[-1])
            advance(len(parts[-1]))
        store.write(shard, np.concatenate(parts))


def embed_images(
    embedder: ClipEmbedder,
    pool: Any,
    store: ShardStore,
    shards: Sequence[int],
    batch_size: int = 64,
    num_workers: int = 2,
    advance: Callable[[int], Any] = lambda count: None,
) -> None:
    """Embed the images of some shards and write them.

    Args:
        embedder: The model.
        pool: The images: ``len(pool)``, ``pool.path(row)``.
        store: Where the shards go; item i is image i of the pool.
        shards: The shards to write.
        batch_size: Images a batch. Defaults to 64.
        num_workers: Processes that decode; 0 decodes here. Defaults to 2.
        advance: Called with the number of images done since its last call.

    Raises:
        ValueError: An image cannot be read; the message has its path.
    """
    if not shards:
        return
    loader = DataLoader(
        _ImageFiles(pool, embedder.preprocess),
        batch_sampler=_batches(store, shards, batch_size),
        num_workers=num_workers,
        collate_fn=_stack,
        pin_memory=torch.device(embedder.device).type == 'cuda',
        # Its own generator: the loader would draw a seed from the global one.
        generator=torch.Generator(),
    )

    def readable() -> Iterator[Tensor]:
        for batch in loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch

    vectors = ordered_map(embedder.images, readable(), embedder.device)
    _write_shards(store, shards, vectors, advance)


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Each text once, short ones first, so that a batch holds texts of about one length.

    Args:
        texts: Expressions (E,), with repetitions.

    Returns:
        The distinct texts by number of words, characters and then alphabet, and the index (E,) of
        every given text among them.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text.split()), len(text), text))
    row = {text: i for i, text in enumerate(distinct)}
    return distinct, np.array([row[text] for text in texts], dtype=np.int64)


def embed_texts(
    embedder: ClipEmbedder,
    texts: Sequence[str],
    store: ShardStore,
    shards: Sequence[int],
    batch_size: int = 64,
    advance: Callable[[int], Any] = lambda count: None,
) -> None:
    """Embed the texts of some shards and write them.

    Args:
        embedder: The model.
        texts: All texts; see :func:`distinct_texts`.
        store: Where the shards go; item i is text i.
        shards: The shards to write.
        batch_size: Texts a batch. Defaults to 64.
        advance: Called with the number of texts done since its last call.
    """
    batches = _batches(store, shards, batch_size)
    lists = ([texts[i] for i in batch] for batch in batches)
    _write_shards(store, shards, ordered_map(embedder.texts, lists, embedder.device), advance)
