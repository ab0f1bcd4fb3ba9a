"""Exact cosine search of images for expressions, by blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .process import ordered_map

# Scores held at a time and thread: 2^20 float32, 4 MB. Larger blocks are hardly faster, and what is
# freed in large pieces stays with the allocator.
SCORES_AT_A_TIME = 2**20
# Expressions of one text are answered in chunks: "man" alone may have thousands.
EXPRESSIONS_AT_A_TIME = 64


class Found(NamedTuple):
    """Best images of some expressions.

    Attributes:
        expressions: Indices (n,) of the expressions.
        rows: Image rows (n, M), by falling similarity.
        similarities: Cosine similarities (n, M) float32, falling.
        own: Similarity (n,) of each expression to its own image.
    """

    expressions: np.ndarray
    rows: np.ndarray
    similarities: np.ndarray
    own: np.ndarray


def top_rows(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of every row, equal scores by smaller column.

    ``torch.topk`` may return any of the columns that tie, at its boundary and inside.

    Args:
        scores: (B, I) float.
        k: Columns to return, at most I.

    Returns:
        Columns (B, k) int64 and their scores (B, k), falling.
    """
    best, columns = scores.topk(k, dim=1, sorted=False)
    least = best.amin(dim=1, keepdim=True)
    tied_out = (scores >= least).sum(dim=1) > k
    for row in tied_out.nonzero()[:, 0].tolist():
        above = (scores[row] > least[row]).nonzero()[:, 0]
        equal = (scores[row] == least[row]).nonzero()[:, 0]
        columns[row] = torch.cat([above, equal[: k - len(above)]])
    columns = columns.sort(dim=1).values
    best, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return columns.gather(1, order), best


class _Block(NamedTuple):
    """Some texts (b, D), and their expressions: indices (n,), texts' rows (n,), own images (n,)."""

    texts: np.ndarray
    expressions: np.ndarray
    text_of: np.ndarray
    own: np.ndarray


def _score(
    block: _Block, images: Tensor, candidates: int, count: int
) -> tuple[_Block, np.ndarray, np.ndarray, np.ndarray]:
    """The best rows (b, count) of a block, their similarities, and those (n,) to own images."""
    scores = torch.from_numpy(block.texts).to(images.device) @ images.T
    rows, best = top_rows(scores[:, :candidates], count)
    own = scores[torch.from_numpy(block.text_of), torch.from_numpy(block.own)]
    return block, rows.cpu().numpy(), best.cpu().numpy(), own.cpu().numpy()


def search(
    text_blocks: Iterable[np.ndarray],
    text_index: np.ndarray,
    own_rows: np.ndarray,
    images: np.ndarray,
    keep: int,
    device: str = 'cpu',
    candidates: int | None = None,
) -> Iterator[Found]:
    """Find for every expression the best images other than its own.

    Every distinct text is scored once, whatever the number of its expressions. Texts come by blocks
    and answers leave by blocks, so memory does not grow with their number.

    Args:
        text_blocks: Unit vectors (b, D) float32 of the distinct texts, block by block, in order.
        text_index: Index (E,) of every expression's text.
        own_rows: Row (E,) of every expression's own image.
        images: Unit vectors (I, D) float32.
        keep: Images to find an expression; fewer where the pool has no more.
        device: Where to compute. Defaults to the CPU.
        candidates: How many of the images, from the first on, can be found; the others are own
            images only. None for all.

    Yields:
        Answers; every expression is in exactly one, in the order of the texts.
    """
    table = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    # Expressions in the order of their texts: those of a block are then one slice.
    by_text = np.argsort(text_index, kind='stable')
    sorted_index = text_index[by_text]
    # The division into blocks depends on the pool alone: the same products, so the same bytes.
    height = max(1, SCORES_AT_A_TIME // max(len(images), 1))

    # One more than is kept, as an expression's own image may be among the best.
    candidates = len(images) if candidates is None else candidates
    count = min(keep + 1, candidates)

    def blocks() -> Iterator[_Block]:
        first = 0
        for block in text_blocks:
            for start in range(0, len(block), height):
                texts = block[start : start + height]
                begin, end = np.searchsorted(sorted_index, [first, first + len(texts)])
                expressions = by_text[begin:end]
                text_of = sorted_index[begin:end] - first
                yield _Block(texts, expressions, text_of, own_rows[expressions])
                first += len(texts)

    for block, rows, best, own in ordered_map(
        lambda b: _score(b, table, candidates, count), blocks(), device
    ):
        for start in range(0, len(own), EXPRESSIONS_AT_A_TIME):
            part = slice(start, start + EXPRESSIONS_AT_A_TIME)
            text_of = block.text_of[part]
            kept = rows[text_of] != block.own[part, None]
            kept[kept.all(axis=1), -1] = False  # the own image was not among them: one too many
            shape = len(kept), count - 1
            yield Found(
                block.expressions[part],
                rows[text_of][kept].reshape(shape),
                best[text_of][kept].reshape(shape),
                own[part],
            )
