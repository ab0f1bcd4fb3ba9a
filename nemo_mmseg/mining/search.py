"""Exact cosine search of images for expressions, and back, by blocks of bounded memory.

Equal scores go to the smaller row, so the ranking is the same with any division into blocks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nemo_mmseg.utils.dist import ordered_map

# Scores held at a time and thread: 2^22 float32, 16 MB. Smaller blocks cost the matrix product.
SCORES_AT_A_TIME = 2**22
# Images scored at a time: of a million, no table of scores is ever whole.
IMAGES_AT_A_TIME = 2**15
# Images checked at a time: a check takes a byte a number, which may stay with the allocator.
CHECKED_AT_A_TIME = 1024
# Expressions of one text are answered in chunks: "man" alone may have thousands.
EXPRESSIONS_AT_A_TIME = 64
# Images from whose scores the cut is guessed. More make the guess better and cost more.
SAMPLE = 1024
_SIGN = np.uint32(1 << 31)


class Found(NamedTuple):
    """Best images of some expressions.

    Attributes:
        expressions: Indices ``(n,)`` of the expressions.
        rows: Image rows ``(n, M)``, by falling similarity.
        similarities: Cosine similarities ``(n, M)`` float32, falling.
        own: Similarity ``(n,)`` float64 of each expression to its own image.
    """

    expressions: np.ndarray
    rows: np.ndarray
    similarities: np.ndarray
    own: np.ndarray


class FoundExpressions(NamedTuple):
    """Best expressions of some images.

    Attributes:
        images: Rows ``(n,)`` of the images.
        rows: Rows ``(n, M)`` of candidates, by falling similarity.
        similarities: Cosine similarities ``(n, M)`` float32, falling.
    """

    images: np.ndarray
    rows: np.ndarray
    similarities: np.ndarray


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
        text_blocks: Unit vectors ``(b, D)`` float32 of the distinct texts, block by block, in
            order.
        text_index: Index ``(E,)`` of every expression's text.
        own_rows: Row ``(E,)`` of every expression's own image.
        images: Unit vectors ``(I, D)`` float32.
        keep: Images to find per expression; fewer where the pool has no more.
        device: Where to compute. Defaults to the CPU.
        candidates: How many of the images, from the first on, can be found; the others are own
            images only. None for all.

    Yields:
        Answers; every expression is in exactly one, in the order of the texts.

    Raises:
        ValueError: A vector is not finite.
    """
    # One more than is kept, as an expression's own image may be among the best.
    candidates = len(images) if candidates is None else candidates
    count = min(keep + 1, candidates)
    # Expressions in the order of their texts: those of a block are then one slice.
    by_text = np.argsort(text_index, kind='stable')
    sorted_index = text_index[by_text]
    ranked = _ranked(text_blocks, images, count, candidates, device, ('text', 'image'))
    for first, texts, rows, best in ranked:
        begin, end = np.searchsorted(sorted_index, [first, first + len(texts)])
        for start in range(begin, end, EXPRESSIONS_AT_A_TIME):
            part = slice(start, min(start + EXPRESSIONS_AT_A_TIME, end))
            expressions, text_of = by_text[part], sorted_index[part] - first
            own = own_rows[expressions]
            kept = rows[text_of] != own[:, None]
            kept[kept.all(axis=1), -1] = False  # its own image was not among them: one too many
            shape = len(kept), count - 1
            yield Found(
                expressions,
                rows[text_of][kept].reshape(shape),
                best[text_of][kept].reshape(shape),
                # In float64: then the order of the sums changes no bit of the result.
                np.einsum('nd,nd->n', texts[text_of], images[own], dtype=np.float64),
            )


def search_expressions(
    image_blocks: Iterable[np.ndarray],
    texts: np.ndarray,
    candidates: int,
    excluded: Sequence[np.ndarray],
    keep: int,
    device: str = 'cpu',
) -> Iterator[FoundExpressions]:
    """Find for every image the best expressions other than those that are known to be true of it.

    Args:
        image_blocks: Unit vectors ``(b, D)`` float32 of the images, block by block, in order.
        texts: Unit vectors ``(T, D)`` float32.
        candidates: How many of the texts, from the first on, can be found.
        excluded: Rows of the candidates that an image must not get, ``(n,)`` int64 for each image.
        keep: Expressions to find per image; see :func:`num_stored`.
        device: Where to compute. Defaults to the CPU.

    Yields:
        Answers; every image is in exactly one, in their order.

    Raises:
        ValueError: A vector is not finite.
    """
    stored = num_stored(keep, candidates, excluded)
    # All that is excluded may be among the best.
    most = max(map(len, excluded))
    ranked = _ranked(image_blocks, texts, stored + most, candidates, device, ('image', 'text'))
    said = np.zeros(candidates, bool)  # of one image at a time: a look-up is faster than a search
    for first, images, rows, best in ranked:
        shape = len(images), stored
        kept_rows, kept_best = np.empty(shape, rows.dtype), np.empty(shape, best.dtype)
        for image, ranking in enumerate(rows):
            said[excluded[first + image]] = True
            free = np.flatnonzero(~said[ranking])[:stored]
            said[excluded[first + image]] = False
            kept_rows[image], kept_best[image] = ranking[free], best[image, free]
        yield FoundExpressions(np.arange(first, first + len(images)), kept_rows, kept_best)


def num_stored(keep: int, candidates: int, excluded: Sequence[np.ndarray]) -> int:
    """Return how many expressions every image can get: ``keep``, or fewer where there are not."""
    return min(keep, candidates - max(map(len, excluded)))


def _ranked(
    query_blocks: Iterable[np.ndarray],
    table: np.ndarray,
    count: int,
    candidates: int,
    device: str,
    names: tuple[str, str],
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Rank a table for queries.

    Args:
        query_blocks: Unit vectors ``(b, D)`` float32 of the queries, block by block, in order.
        table: Unit vectors ``(I, D)`` float32.
        count: Rows to find per query.
        candidates: How many rows, from the first on, can be found.
        device: Where to compute.
        names: What a query is and what a row is, for messages.

    Yields:
        Some queries at a time: index of the first, vectors ``(n, D)``, rows ``(n, count)`` and
        scores ``(n, count)``.
    """
    query, row = names
    for start in range(0, len(table), CHECKED_AT_A_TIME):
        _check_finite(table[start : start + CHECKED_AT_A_TIME], row, start)
    ranker = Ranker(table, count, candidates, device)
    # The division into blocks depends on table and count alone: the same products, the same bytes.
    width = min(len(table), IMAGES_AT_A_TIME) + 4 * count
    height = max(1, SCORES_AT_A_TIME // width)

    def rank(block: tuple[int, np.ndarray]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        return *block, *ranker.rank(block[1])

    yield from ordered_map(rank, _blocks(query_blocks, height, query), device)


def _blocks(
    query_blocks: Iterable[np.ndarray], height: int, what: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Queries by blocks of at most ``height``, each with the index of its first one."""
    first = 0
    for block in query_blocks:
        _check_finite(block, what, first)
        # Even parts: a last one of few queries would be a slow product.
        for queries in np.array_split(block, -(-len(block) // height) or 1):
            yield first, queries
            first += len(queries)


def _check_finite(vectors: np.ndarray, what: str, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f'the vector of {what} {first + bad[0]} is not finite: the weights, or the number '
            'format they were computed in, do not serve'
        )


def top_rows(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best columns of every row, equal scores by smaller column.

    ``torch.topk`` may return any of the columns that tie, at its boundary and inside.

    Args:
        scores: ``(B, I)`` float.
        k: Columns to return, at most I.

    Returns:
        Columns ``(B, k)`` int64 and their scores ``(B, k)``, falling.
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


def sort_keys(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return keys that rise as scores fall, and among equal scores as rows rise.

    Sorting one array of whole numbers is ten times as fast as a stable sort of floats with their
    rows, and there is nothing to break ties in.

    Args:
        scores: ``(n,)`` float32, no NaN.
        rows: ``(n,)``, less than 2^32.

    Returns:
        ``(n,)`` uint64; :func:`unpack_keys` gives scores and rows back.
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0, to which it is equal
    # The bits of positive floats rise with them, those of negative ones fall: turn the former.
    falling = np.where(bits < _SIGN, bits ^ (_SIGN - 1), bits)
    return falling.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64)


def unpack_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores float32 and rows int64 of the keys of :func:`sort_keys`."""
    falling = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(falling < _SIGN, falling ^ (_SIGN - 1), falling)
    return bits.view(np.float32), keys.astype(np.uint32).astype(np.int64)


class Ranker:
    """Rank a table of images for blocks of texts.

    On a CPU no more than the best images are sorted: the scores of a sample of the images say which
    cut somewhat more than ``count`` images exceed, and those above it are taken. Where they are too
    few after all, that text is ranked again without a cut. So the ranking is exact, and the sample
    only saves time. A GPU, on which ``torch.topk`` is fast, ranks every tile and merges.

    Args:
        images: Vectors ``(I, D)`` float32.
        count: Images to find per text, at most ``candidates``.
        candidates: How many of the images, from the first on, can be found.
        device: Where to compute.

    Attributes:
        by_cut: Whether it works as on a CPU; it may be set.
    """

    def __init__(self, images: np.ndarray, count: int, candidates: int, device: str) -> None:
        self.table = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self._buffers = threading.local()
        self.count = count
        self.candidates = candidates
        self.by_cut = self.table.device.type == 'cpu'
        # At random: every n-th image could miss kinds of images that come in turns.
        chosen = np.random.default_rng(0).permutation(candidates)[:SAMPLE]
        self.sample = self.table[torch.from_numpy(np.sort(chosen)).to(device)]
        expected = len(self.sample) * count / max(candidates, 1)
        # Four standard deviations more than expected, and room for the skew of small numbers.
        self.taken = math.ceil(expected + 4 * math.sqrt(expected) + 4)

    def rank(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rank the images for some texts.

        Args:
            texts: Vectors ``(b, D)`` float32.

        Returns:
            Rows ``(b, count)`` int64 of the best images, and their scores ``(b, count)`` float32,
            falling.
        """
        block = torch.from_numpy(np.ascontiguousarray(texts)).to(self.table.device)
        if self.by_cut:
            best, rows = unpack_keys(self._keys(block, self.cut(block)))
            return rows, best
        return self._merged(block)

    def _tiles(self, block: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First row and scores, tile by tile."""
        for start in range(0, self.candidates, IMAGES_AT_A_TIME):
            tile = self.table[start : min(start + IMAGES_AT_A_TIME, self.candidates)]
            yield start, torch.mm(block, tile.T, out=self._buffer(len(block), len(tile)))

    def _buffer(self, *shape: int) -> Tensor:
        """Where this thread's scores go, tile after tile: new memory each time would pile up."""
        size = math.prod(shape)
        buffer = getattr(self._buffers, 'scores', self.table[:0].flatten())
        if len(buffer) < size:
            buffer = self._buffers.scores = self.table.new_empty(size)
        return buffer[:size].view(shape)

    def cut(self, block: Tensor) -> np.ndarray:
        """Guess a score ``(b, 1)`` that somewhat more than ``count`` images will reach."""
        if self.taken >= len(self.sample):
            return np.full((len(block), 1), -np.inf, np.float32)
        scores = (block @ self.sample.T).numpy()
        place = len(self.sample) - self.taken
        return np.partition(scores, place, axis=1)[:, place : place + 1]

    def _keys(self, block: Tensor, cut: np.ndarray) -> np.ndarray:
        """Sorted keys ``(b, count)`` of the best images."""
        found = [np.zeros(0, np.uint64)] * len(block)
        for start, tile in self._tiles(block):
            # Text by text: indices of all that is found in a tile would outweigh its scores.
            for text, scores in enumerate(tile.numpy()):
                columns = np.flatnonzero(scores >= cut[text])
                keys = sort_keys(scores[columns], columns + start)
                found[text] = np.concatenate([found[text], keys])
                if len(found[text]) > 4 * self.count:
                    found[text] = np.sort(found[text])[: self.count].copy()  # a view keeps all
        best = np.empty((len(block), self.count), np.uint64)
        for text, keys in enumerate(found):
            if len(keys) < self.count:
                best[text] = self._keys(block[text : text + 1], np.float32([[-np.inf]]))
            else:
                best[text] = np.sort(keys)[: self.count]
        return best

    def _merged(self, block: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores ``(b, count)`` of the best images."""
        rows = torch.zeros((len(block), 0), dtype=torch.long, device=block.device)
        best = torch.zeros((len(block), 0), device=block.device)
        for start, scores in self._tiles(block):
            columns, new = top_rows(scores, min(self.count, scores.shape[1]))
            # What is equal stands in the order of rows on either side, and so it stays.
            rows, best = torch.cat([rows, columns + start], 1), torch.cat([best, new], 1)
            order, best = top_rows(best, min(self.count, best.shape[1]))
            rows = rows.gather(1, order)
        return rows.cpu().numpy(), best.cpu().numpy()
