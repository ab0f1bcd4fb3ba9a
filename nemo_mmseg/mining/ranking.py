"""Ranks the images for a few texts: exact, equal scores by smaller row, by tiles of the pool."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

# Images scored at a time: of a million, no table of scores is ever whole.
IMAGES_AT_A_TIME = 2**15
# Images from whose scores the cut is guessed. More make the guess better and cost more.
SAMPLE = 1024
_SIGN = np.uint32(1 << 31)


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


def sort_keys(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Keys whose rising order is that of falling scores, and of rising rows among equal ones.

    Sorting one array of whole numbers is ten times as fast as a stable sort of floats with their
    rows, and there is nothing to break ties in.

    Args:
        scores: (n,) float32, no NaN.
        rows: (n,), less than 2^32.

    Returns:
        (n,) uint64; :func:`unpack_keys` gives scores and rows back.
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0, to which it is equal
    # The bits of positive floats rise with them, those of negative ones fall: turn the former.
    falling = np.where(bits < _SIGN, bits ^ (_SIGN - 1), bits)
    return falling.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64)


def unpack_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 and rows int64 of the keys of :func:`sort_keys`."""
    falling = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(falling < _SIGN, falling ^ (_SIGN - 1), falling)
    return bits.view(np.float32), keys.astype(np.uint32).astype(np.int64)


class Ranker:
    """Ranks a table of images for blocks of texts.

    On a CPU no more than the best images are sorted: the scores of a sample of the images say which
    cut somewhat more than ``count`` images exceed, and those above it are taken. Where they are too
    few after all, that text is ranked again without a cut. So the ranking is exact, and the sample
    only saves time. A GPU, on which ``torch.topk`` is fast, ranks every tile and merges.

    Args:
        images: Vectors (I, D) float32.
        count: Images to find a text, at most ``candidates``.
        candidates: How many of the images, from the first on, can be found.
        device: Where to compute.
    """

    def __init__(self, images: np.ndarray, count: int, candidates: int, device: str) -> None:
        self.table = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self._rooms = threading.local()
        self.count = count
        self.candidates = candidates
        # At random: every n-th image could miss kinds of images that come in turns.
        chosen = np.random.default_rng(0).permutation(candidates)[:SAMPLE]
        self.sample = self.table[torch.from_numpy(np.sort(chosen)).to(device)]
        expected = len(self.sample) * count / max(candidates, 1)
        # Four standard deviations more than expected, and room for the skew of small numbers.
        self.taken = math.ceil(expected + 4 * math.sqrt(expected) + 4)

    def rank(
        self, texts: np.ndarray, text_of: np.ndarray, own: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rank the images for some texts.

        Args:
            texts: Vectors (b, D) float32.
            text_of: Texts (n,) whose score of one image is wanted besides.
            own: Row (n,) of that image.

        Returns:
            Rows (b, count) int64 of the best images, their scores (b, count) float32, falling, and
            the scores (n,) asked for.
        """
        block = torch.from_numpy(np.ascontiguousarray(texts)).to(self.table.device)
        asked = np.empty(len(own), np.float32)
        if self.table.device.type == 'cpu':
            best, rows = unpack_keys(self._keys(block, self._cut(block), text_of, own, asked))
        else:
            rows, best = self._merged(block, text_of, own, asked)
        return rows, best, asked

    def _tiles(
        self, block: Tensor, text_of: np.ndarray, own: np.ndarray, asked: np.ndarray
    ) -> Iterator[tuple[int, Tensor]]:
        """First row and scores of the candidates, tile by tile; fills ``asked`` on the way."""
        for start in range(0, len(self.table), IMAGES_AT_A_TIME):
            tile = self.table[start : start + IMAGES_AT_A_TIME]
            scores = torch.mm(block, tile.T, out=self._room(len(block), len(tile)))
            here = np.flatnonzero((own >= start) & (own < start + len(tile)))
            at = torch.from_numpy(text_of[here]), torch.from_numpy(own[here] - start)
            asked[here] = scores[at].cpu().numpy()
            if start < self.candidates:
                yield start, scores[:, : self.candidates - start]

    def _room(self, *shape: int) -> Tensor:
        """Where this thread's scores go, tile after tile: new ones each time would pile up."""
        size = math.prod(shape)
        room = getattr(self._rooms, 'scores', self.table[:0].flatten())
        if len(room) < size:
            room = self._rooms.scores = self.table.new_empty(size)
        return room[:size].view(shape)

    def _cut(self, block: Tensor) -> np.ndarray:
        """A score (b, 1) that somewhat more than ``count`` images will reach."""
        if self.taken >= len(self.sample):
            return np.full((len(block), 1), -np.inf, np.float32)
        scores = (block @ self.sample.T).numpy()
        place = len(self.sample) - self.taken
        return np.partition(scores, place, axis=1)[:, place : place + 1]

    def _keys(
        self,
        block: Tensor,
        cut: np.ndarray,
        text_of: np.ndarray,
        own: np.ndarray,
        asked: np.ndarray,
    ) -> np.ndarray:
        """Sorted keys (b, count) of the best images."""
        found = [np.zeros(0, np.uint64)] * len(block)
        for start, tile in self._tiles(block, text_of, own, asked):
            # Text by text: indices of all that is found in a tile would outweigh its scores.
            for text, scores in enumerate(tile.numpy()):
                columns = np.flatnonzero(scores >= cut[text])
                keys = sort_keys(scores[columns], columns + start)
                found[text] = np.concatenate([found[text], keys])
                if len(found[text]) > 4 * self.count:
                    found[text] = np.sort(found[text])[: self.count].copy()  # a view keeps all
        no_cut, nothing = np.full((1, 1), -np.inf, np.float32), np.zeros(0, np.int64)
        best = np.empty((len(block), self.count), np.uint64)
        for text, keys in enumerate(found):
            if len(keys) < self.count:
                one = block[text : text + 1]
                best[text] = self._keys(one, no_cut, nothing, nothing, asked[:0])
            else:
                best[text] = np.sort(keys)[: self.count]
        return best

    def _merged(
        self, block: Tensor, text_of: np.ndarray, own: np.ndarray, asked: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores (b, count) of the best images."""
        rows = torch.zeros((len(block), 0), dtype=torch.long, device=block.device)
        best = torch.zeros((len(block), 0), device=block.device)
        for start, scores in self._tiles(block, text_of, own, asked):
            columns, new = top_rows(scores, min(self.count, scores.shape[1]))
            # What is equal stands in the order of rows on either side, and so it stays.
            rows, best = torch.cat([rows, columns + start], 1), torch.cat([best, new], 1)
            order, best = top_rows(best, min(self.count, best.shape[1]))
            rows = rows.gather(1, order)
        return rows.cpu().numpy(), best.cpu().numpy()
