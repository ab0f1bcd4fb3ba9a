"""Mining of expressions for images: which are candidates, and which an image must not get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nemo_mmseg.negatives.expression_bank import normalized

from .bank_writer import ExpressionBankWriter
from .search import FoundExpressions, num_stored, search_expressions

# Images, or expressions, looked at together.
_AT_A_TIME = 512


class Said(NamedTuple):
    """What is said in a data set.

    Attributes:
        sent_ids: Sentence ids ``(E,)``, rising.
        texts: The distinct texts ``(T,)``.
        text_index: Index ``(E,)`` of every expression's text.
        rows: Row ``(E,)`` of every expression's image in the pool.
    """

    sent_ids: np.ndarray
    texts: list[str]
    text_index: np.ndarray
    rows: np.ndarray


class Candidates(NamedTuple):
    """Expressions that images can get.

    Attributes:
        texts: Indices ``(C,)`` of their texts: of those that differ in case or spaces alone, the
            first.
        sent_ids: Smallest sentence id ``(C,)`` of each.
        excluded: By image the candidates ``(n,)`` that are said of it.
    """

    texts: np.ndarray
    sent_ids: np.ndarray
    excluded: list[np.ndarray]


def candidates_of(said: Said, num_images: int) -> Candidates:
    """Find the candidates of a data set, and those that each image must not get.

    Args:
        said: What is said in the data set.
        num_images: Images of its pool.

    Raises:
        ValueError: An image gets none, as all expressions are said of it.
    """
    first: dict[str, int] = {}
    of_text = np.fromiter(
        (first.setdefault(normalized(text), len(first)) for text in said.texts),
        np.int64,
        len(said.texts),
    )
    _, texts = np.unique(of_text, return_index=True)
    # Sentence ids rise, so the first expression of a candidate has the smallest.
    of_expression = of_text[said.text_index]
    _, spoken_first = np.unique(of_expression, return_index=True)
    pairs = np.unique(np.stack([said.rows, of_expression]), axis=1)
    starts = np.searchsorted(pairs[0], np.arange(1, num_images))
    excluded = np.split(pairs[1], starts)
    if max(map(len, excluded)) == len(texts):
        raise ValueError(
            f'no expression of another image is left: all {len(texts)} are said of one image'
        )
    return Candidates(texts, said.sent_ids[spoken_first], excluded)


def mined_expressions(
    said: Said,
    text_blocks: Iterable[np.ndarray],
    images: np.ndarray,
    keep: int,
    device: str,
    metadata: dict[str, Any],
) -> tuple[Iterator[FoundExpressions], Callable[[Path], ExpressionBankWriter]]:
    """Search the expressions of other images that match each image best.

    Args:
        said: What is said in the data set.
        text_blocks: Unit vectors ``(b, D)`` float32 of the distinct texts, block by block.
        images: Unit vectors ``(I, D)`` float32.
        keep: Expressions to store per image.
        device: Where to compute.
        metadata: What the bank is made with.

    Returns:
        The answers, and what opens the writer of their bank.
    """
    found = candidates_of(said, len(images))
    # Candidates first: the search takes no others. The rest only has similarities of its own.
    others = np.setdiff1d(np.arange(len(said.texts)), found.texts)
    place = np.empty(len(said.texts), np.int64)
    place[np.concatenate([found.texts, others])] = np.arange(len(said.texts))
    vectors = np.empty((len(said.texts), images.shape[1]), np.float32)
    begin = 0
    for block in text_blocks:
        vectors[place[begin : begin + len(block)]] = block
        begin += len(block)
    own = np.empty(len(said.sent_ids))
    for begin in range(0, len(own), _AT_A_TIME):
        part = slice(begin, begin + _AT_A_TIME)
        pair = vectors[place[said.text_index[part]]], images[said.rows[part]]
        # In float64: then the order of the sums changes no bit of the result.
        own[part] = np.einsum('nd,nd->n', *pair, dtype=np.float64)
    number = len(found.texts)
    blocks = (images[begin : begin + _AT_A_TIME] for begin in range(0, len(images), _AT_A_TIME))
    writer = partial(
        ExpressionBankWriter,
        sent_ids=said.sent_ids,
        image_row=said.rows,
        self_similarity=own,
        texts=[said.texts[row] for row in found.texts],
        text_sent_ids=found.sent_ids,
        num_images=len(images),
        stored=num_stored(keep, number, found.excluded),
        metadata=metadata,
    )
    return search_expressions(blocks, vectors, number, found.excluded, keep, device), writer
