"""The bank: the mined negatives of a data set in one memory-mapped safetensors file.

Tensors, for E expressions, I images and M stored images per expression:

======================  ==============  ===========================================================
``sent_ids``            int64 (E,)      sentence ids, rising
``neighbors``           uint16 (E, M)   image rows by falling similarity, equal ones by smaller row;
                                        the target image is not among them (int32 where I > 65,536)
``similarities``        float16 (E, M)  cosine similarities of expression and image
``self_similarity``     float16 (E,)    ... of the expression and its target image
``image_row``           int32 (E,)      row of the expression's target image
``image_ids``           int64 (I,)      image ids
``image_name_bytes``    uint8           file names in UTF-8, one after the other
``image_name_offsets``  int64 (I + 1,)  where each begins
``image_vectors``       float16 (I, D)  unit vectors of the images
``row_checksums``       uint64 (E, 2)   of each row of ``neighbors`` and of ``similarities``
======================  ==============  ===========================================================

A process compares with checksums in the header: when it opens the file, the header and the small
tensors; when it first looks at them, the vectors. A row of the rankings is compared with its own
checksums when it is first read (about 2 us), and so these need none. Banks of format 1, from before
there were checksums, are read unchecked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nemo_mmseg.utils.tensor_file import Names

from .band import Band, BandRule
from .ranked_file import BankError, RankedFile, UnknownSentenceError

__all__ = ['BankError', 'BankSpec', 'NegativeBank', 'UnknownSentenceError', 'open_bank']
FORMAT_VERSION = 2
# By decreasing element size, so that every tensor is aligned.
TENSORS = (
    'sent_ids', 'image_ids', 'image_name_offsets', 'row_checksums', 'image_row', 'neighbors',
    'similarities', 'self_similarity', 'image_vectors', 'image_name_bytes',
)  # fmt: skip
# Expressions that are looked at together when all bands are sized: a block's cosines with 20,000
# images take 80 MB.
BLOCK = 512


@dataclass(frozen=True)
class BankSpec:
    """Where a bank lies and how it is mined.

    Attributes:
        path: The file; ``~`` is the home folder.
        model: open_clip's name of the CLIP that mines it, e.g. ``'ViT-B-32'``.
        pretrained: Its weights: tag or local file.
        keep: Images stored per expression, or expressions per image.
        images: Folder of the negatives; None where they are the data set's own images.
        kind: What it ranks: ``'images'`` for each expression (:class:`NegativeBank`), or
            ``'expressions'`` for each image (:class:`ExpressionBank`).
    """

    path: str
    model: str | None = None
    pretrained: str | None = None
    keep: int = 1000
    images: str | None = None
    kind: str = 'images'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'path', os.path.expanduser(self.path))
        if self.kind not in ('images', 'expressions'):
            raise ValueError(f"bank: kind={self.kind!r} is neither 'images' nor 'expressions'")
        if self.kind == 'expressions' and self.images is not None:
            raise ValueError(f'bank: images={self.images!r} goes with a bank of images only')


class NegativeBank(RankedFile):
    """Read a bank; see this module for what it holds.

    Args:
        path: The file.
    """

    KIND = 'bank'
    FORMATS = {
        FORMAT_VERSION: TENSORS,
        1: tuple(name for name in TENSORS if name != 'row_checksums'),
    }
    CHECKED_FROM = 2
    # It is a hundred times as large as the others, and only thresholds between images look at it.
    COMPARED_LATE = ('image_vectors',)

    def _ranking_name(self, row: int) -> str:
        return f'expression {self.sent_ids[row]}'

    @property
    def image_names(self) -> Sequence[str]:
        """File names of the I images."""
        return Names(self.arrays['image_name_bytes'], self.arrays['image_name_offsets'])

    @property
    def image_ids(self) -> np.ndarray:
        """Image ids ``(I,)``."""
        return self.arrays['image_ids']

    @property
    def image_vectors(self) -> np.ndarray:
        """Unit vectors ``(I, D)`` float16 of the images."""
        return self.whole('image_vectors')

    @property
    def num_candidates(self) -> int:
        """How many images, from the first row on, can be negatives.

        All of them, unless the negatives come from a folder: its images come first in the table,
        then the expressions' own images.
        """
        return self.metadata.get('candidates', len(self.image_ids))

    @property
    def is_cut(self) -> bool:
        """Whether there are more candidates than are stored."""
        return self.stored < self.num_candidates - 1

    def row(
        self, sent_id: int, expression: str | None = None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the stored ranking of an expression.

        Args:
            sent_id: Its sentence id.
            expression: Its words, for the error message.

        Returns:
            Image rows ``(M,)``, their similarities ``(M,)``, falling, and the similarity to its own
            image.

        Raises:
            UnknownSentenceError: The bank has no such expression.
            BankError: The ranking is damaged.
        """
        index, arrays = self._index(sent_id, expression), self.arrays
        self._compare((index,))
        own = float(arrays['self_similarity'][index])
        return arrays['neighbors'][index], arrays['similarities'][index], own

    def band(
        self,
        sent_id: int,
        rule: BandRule,
        expression: str | None = None,
        without: np.ndarray | None = None,
    ) -> Band:
        """Return the images that are below the threshold, the best ``top_k`` of them.

        Args:
            sent_id: Sentence id of the expression.
            rule: Which images make the band.
            expression: Its words, for the error message.
            without: Which images ``(I,)`` bool are no negatives whatever their scores, e.g. those
                that a leak guard holds back. The next ones take their places.

        Returns:
            The band; empty where every stored image is dropped.

        Raises:
            UnknownSentenceError: The bank has no such expression.
            BankError: The ranking is damaged.
        """
        index, arrays = self._index(sent_id, expression), self.arrays
        self._compare((index,))
        rows, similarities = arrays['neighbors'][index], arrays['similarities'][index]
        own = float(arrays['self_similarity'][index])
        start = rule.start(similarities, own)
        # As many at a time as are needed: no more of the ranking is looked at than it takes.
        step, end, kept, dropped = rule.top_k, start, [], []
        while end < len(rows) and len(kept) < rule.top_k:
            part = np.arange(end, min(end + step, len(rows)))
            end += step
            if without is not None:
                part = part[~without[rows[part]]]
            if rule.i2i_sim_thres is not None:
                # Sums of products of float16 are exact in float64, whatever their order.
                vectors = self.image_vectors[rows[part]].astype(np.float64)
                target = self.image_vectors[self.image_row[index]].astype(np.float64)
                alike = np.einsum('nd,d->n', vectors, target) > rule.i2i_sim_thres
                dropped += part[alike].tolist()
                part = part[~alike]
            kept += part.tolist()
            step = rule.top_k - len(kept) + 16
        kept = kept[: rule.top_k]
        if len(kept) == rule.top_k:
            dropped = [place for place in dropped if place < kept[-1]]
        truncated = len(kept) < rule.top_k and self.is_cut
        return Band(rows[kept], similarities[kept], truncated, own, start, rows[dropped])

    def band_sizes(self, rule: BandRule, without: np.ndarray | None = None) -> np.ndarray:
        """Count the images ``(E,)`` int64 in the band of every expression; see :meth:`band`."""
        return np.minimum(self.num_remaining([rule], without)[0], rule.top_k)

    def num_remaining(
        self, rules: Sequence[BandRule], without: np.ndarray | None = None
    ) -> np.ndarray:
        """Count the stored images that no threshold drops, for several rules in one look.

        Args:
            rules: Their ``top_k`` does not count.
            without: As for :meth:`band`.

        Returns:
            ``(R, E)`` int64.
        """
        arrays, places = self.arrays, np.arange(self.stored)
        remaining = np.empty((len(rules), len(self)), np.int64)
        looks = any(rule.i2i_sim_thres is not None for rule in rules)
        for part, cosines in self._blocks(looks):
            similarities = arrays['similarities'][part]
            held_out = False if without is None else without[arrays['neighbors'][part]]
            for row, rule in zip(remaining, rules):
                starts = rule.starts(similarities, arrays['self_similarity'][part])
                dropped, most = places < starts[:, None], rule.i2i_sim_thres
                dropped |= held_out if most is None else held_out | (cosines > most)
                row[part] = self.stored - dropped.sum(axis=1)
        return remaining

    def _blocks(self, cosines: bool) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Expressions ``(n,)``, some at a time, with the cosines ``(n, M)`` of their images."""
        order = np.argsort(self.image_row, kind='stable')
        # As in `band`: exact in float64.
        vectors = self.image_vectors.astype(np.float64) if cosines else None
        for begin in range(0, len(order), BLOCK):
            part = order[begin : begin + BLOCK]
            self._compare(part.tolist())
            if not cosines:
                yield part, None
                continue
            own, which = np.unique(self.image_row[part], return_inverse=True)
            table = vectors[own] @ vectors[: self.num_candidates].T
            yield part, table[which[:, None], self.arrays['neighbors'][part]]


@lru_cache(maxsize=16)
def open_bank(path: str, fingerprint: str) -> NegativeBank:
    """Open a bank once in each process, and check that it is that of the data set.

    Handles are not kept in transforms, which are pickled to workers.
    """
    bank = NegativeBank(path)
    bank.check(fingerprint)
    return bank
