"""Exact cosine search of images for expressions, by blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .process import ordered_map

# Scores held at a time and thread: 2^23 float32, 32 MB.
SCORES_AT_A_TIME = 2**23
# Expressions of one text are answered in chunks: "man" alone may have thousands.
EXPRESSIONS_AT_A_TIME = 512


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


def _score(texts: np.ndarray, images: Tensor, count: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """The ``count`` best rows of a block of texts, their similarities, and all scores."""
    scores = torch.from_numpy(texts).to(images.device) @ images.T
    rows, best = top_rows(scores, count)
    return rows.cpu().numpy(), best.cpu().numpy(), scores


def search(
    text_blocks: Iterable[np.ndarray],
    text_index: np.ndarray,
    own_rows: np.ndarray,
    images: np.ndarray,
    keep: int,
    device: str = 'cpu',
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
    count = min(keep + 1, len(images))

    def blocks() -> Iterator[np.ndarray]:
        for block in text_blocks:
            for start in range(0, len(block), height):
                yield block[start : start + height]

    first = 0
    for rows, best, scores in ordered_map(lambda b: _score(b, table, count), blocks(), device):
        begin, end = np.searchsorted(sorted_index, [first, first + len(rows)])
        for start in range(begin, end, EXPRESSIONS_AT_A_TIME):
            part = slice(start, min(start + EXPRESSIONS_AT_A_TIME, end))
            expressions, text_of = by_text[part], sorted_index[part] - first
            own = own_rows[expressions]
            kept = rows[text_of] != own[:, None]
            kept[kept.all(axis=1), -1] = False  # the own image was not among them: one too many
            yield Found(
                expressions,
                rows[text_of][kept].reshape(len(own), count - 1),
                best[text_of][kept].reshape(len(own), count - 1),
                scores[torch.from_numpy(text_of), torch.from_numpy(own)].cpu().numpy(),
            )
        first += len(rows)
