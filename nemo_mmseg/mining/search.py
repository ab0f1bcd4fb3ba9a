"""Exact cosine search of images for expressions, by blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from nemo_mmseg.utils.dist import ordered_map

from .index_ranker import IndexRanker
from .ranking import IMAGES_AT_A_TIME, Ranker

# Scores held at a time and thread: 2^22 float32, 16 MB. Smaller blocks cost the matrix product.
SCORES_AT_A_TIME = 2**22
# Images checked at a time: a check takes a byte a number, which may stay with the allocator.
CHECKED_AT_A_TIME = 1024
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


class _Block(NamedTuple):
    """Some texts (b, D), and their expressions: indices (n,), texts' rows (n,), own images (n,)."""

    texts: np.ndarray
    expressions: np.ndarray
    text_of: np.ndarray
    own: np.ndarray


def search(
    text_blocks: Iterable[np.ndarray],
    text_index: np.ndarray,
    own_rows: np.ndarray,
    images: np.ndarray,
    keep: int,
    device: str = 'cpu',
    candidates: int | None = None,
    ranker: IndexRanker | None = None,
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
        ranker: Ranks the images by an index instead of exactly, one more than ``keep``.

    Yields:
        Answers; every expression is in exactly one, in the order of the texts.

    Raises:
        ValueError: A vector is not finite.
    """
    # One more than is kept, as an expression's own image may be among the best.
    candidates = len(images) if candidates is None else candidates
    count = min(keep + 1, candidates)
    for start in range(0, len(images), CHECKED_AT_A_TIME):
        _check_finite(images[start : start + CHECKED_AT_A_TIME], 'image', start)
    if ranker is None:
        ranker = Ranker(images, count, candidates, device)
    else:
        device = 'cpu'  # where faiss works: by several threads, each with a block
    # The division into blocks depends on pool and keep alone: the same products, so the same bytes.
    width = min(len(images), IMAGES_AT_A_TIME) + 4 * count
    height = max(1, SCORES_AT_A_TIME // width)

    def score(block: _Block) -> tuple[_Block, np.ndarray, np.ndarray, np.ndarray]:
        return block, *ranker.rank(block.texts, block.text_of, block.own)

    blocks = _blocks(text_blocks, text_index, own_rows, height)
    for block, rows, best, own in ordered_map(score, blocks, device):
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


def _blocks(
    text_blocks: Iterable[np.ndarray], text_index: np.ndarray, own_rows: np.ndarray, height: int
) -> Iterator[_Block]:
    """Texts by blocks of at most ``height``, each with its expressions."""
    # Expressions in the order of their texts: those of a block are then one slice.
    by_text = np.argsort(text_index, kind='stable')
    sorted_index = text_index[by_text]
    first = 0
    for block in text_blocks:
        _check_finite(block, 'text', first)
        # Even parts: a last one of few texts would be a slow product.
        for texts in np.array_split(block, -(-len(block) // height) or 1):
            begin, end = np.searchsorted(sorted_index, [first, first + len(texts)])
            expressions = by_text[begin:end]
            text_of = sorted_index[begin:end] - first
            yield _Block(texts, expressions, text_of, own_rows[expressions])
            first += len(texts)


def _check_finite(vectors: np.ndarray, what: str, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f'the vector of {what} {first + bad[0]} is not finite: the weights, or the number '
            'format they were computed in, do not serve'
        )
