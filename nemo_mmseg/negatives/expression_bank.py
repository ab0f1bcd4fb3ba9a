"""The bank turned round: for each image, expressions of other images that match it.

One memory-mapped safetensors file, as the bank of images (:mod:`nemo_mmseg.negatives.bank`).
Tensors, for E expressions, I images, C candidates and M candidates stored per image:

====================  ==============  =============================================================
``sent_ids``          int64 (E,)      sentence ids, rising
``image_row``         int32 (E,)      row of the expression's image in the data set's pool
``self_similarity``   float16 (E,)    cosine similarity of expression and image
``text_sent_ids``     int64 (C,)      smallest sentence id of each candidate
``text_bytes``        uint8           candidates in UTF-8, one after the other
``text_offsets``      int64 (C + 1,)  where each begins
``neighbors``         uint16 (I, M)   candidates by falling similarity, equal ones by smaller row
                                      (int32 where C > 65,536)
``similarities``      float16 (I, M)  cosine similarities of image and candidate
``row_checksums``     uint64 (I, 2)   of each row of ``neighbors`` and of ``similarities``
====================  ==============  =============================================================

Expressions that differ in case or spaces alone are one candidate. What is said of an image, by any
of its references, is no candidate of that image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from nemo_mmseg.utils.tensor_file import Names

from .band import Band, BandRule
from .ranked_file import RankedFile

FORMAT_VERSION = 1
# By decreasing element size, so that every tensor is aligned.
TENSORS = (
    'sent_ids', 'text_sent_ids', 'text_offsets', 'row_checksums', 'image_row', 'neighbors',
    'similarities', 'self_similarity', 'text_bytes',
)  # fmt: skip


def normalized(text: str) -> str:
    """Return an expression without what tells no two apart: case and spaces."""
    return ' '.join(text.lower().split())


class ExpressionBank(RankedFile):
    """Read a bank of expressions; see this module for what it holds.

    Args:
        path: The file.
    """

    KIND = 'bank of expressions'
    CONTENT = 'expressions'
    FORMATS = {FORMAT_VERSION: TENSORS}
    CHECKED_FROM = 1

    def _ranking_name(self, row: int) -> str:
        return f'the image in row {row}'

    @property
    def texts(self) -> Sequence[str]:
        """The C candidates."""
        return Names(self.arrays['text_bytes'], self.arrays['text_offsets'])

    @property
    def text_sent_ids(self) -> np.ndarray:
        """Sentence ids ``(C,)`` of the candidates."""
        return self.arrays['text_sent_ids']

    def image_of(self, candidate: int) -> int:
        """Return the row of the image that a candidate's expression was said of."""
        return int(self.image_row[self._index(int(self.text_sent_ids[candidate]), None)])

    @property
    def num_candidates(self) -> int:
        """How many different expressions there are."""
        return len(self.text_sent_ids)

    def band(self, sent_id: int, rule: BandRule, expression: str | None = None) -> Band:
        """Return the candidates of an expression's image below the threshold, the best ``top_k``.

        The threshold compares with the similarity of that very expression and the image.

        Args:
            sent_id: Sentence id of the expression that is to be replaced.
            rule: Which candidates make the band; without ``i2i_sim_thres``.
            expression: Its words, for the error message.

        Returns:
            The band, whose rows are those of :attr:`texts`.

        Raises:
            UnknownSentenceError: The bank has no such expression.
            BankError: The ranking is damaged.
        """
        index, arrays = self._index(sent_id, expression), self.arrays
        image = int(arrays['image_row'][index])
        self._compare((image,))
        rows, similarities = arrays['neighbors'][image], arrays['similarities'][image]
        own = float(arrays['self_similarity'][index])
        start = rule.start(similarities, own)
        part = slice(start, start + rule.top_k)
        truncated = len(rows) - start < rule.top_k and self.is_cut
        return Band(rows[part], similarities[part], truncated, own, start)

    @property
    def is_cut(self) -> bool:
        """Whether more candidates were found than are stored."""
        return self.stored == self.metadata.get('keep')

    def num_remaining(self, rules: Sequence[BandRule], without: None = None) -> np.ndarray:
        """Count the stored candidates that no threshold drops, for several rules.

        Args:
            rules: Their ``top_k`` does not count.
            without: Always None: no leak guard holds expressions back.

        Returns:
            ``(R, E)`` int64.
        """
        arrays, images = self.arrays, self.image_row
        self._compare(range(len(arrays['neighbors'])))
        remaining = np.empty((len(rules), len(self)), np.int64)
        for first in range(0, len(self), 4096):  # a block's similarities take some MB
            part = slice(first, first + 4096)
            similarities = arrays['similarities'][images[part]]
            for row, rule in zip(remaining, rules):
                starts = rule.starts(similarities, arrays['self_similarity'][part])
                row[part] = self.stored - starts
        return remaining


@lru_cache(maxsize=16)
def open_expression_bank(path: str, fingerprint: str) -> ExpressionBank:
    """Open a bank once in each process, and check that it is that of the data set."""
    bank = ExpressionBank(path)
    bank.check(fingerprint)
    return bank
