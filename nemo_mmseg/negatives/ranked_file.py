"""Base of the banks: files of rankings, each with its own checksums, that know their data set."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable

import numpy as np

from nemo_mmseg.utils.tensor_file import MappedFile, checksum

# These have checksums row by row, in this order.
RANKINGS = 'neighbors', 'similarities'


class BankError(RuntimeError):
    """The file is no bank, is damaged, or belongs to another data set."""


class UnknownSentenceError(KeyError):
    """The bank has no such expression."""

    def __str__(self) -> str:
        return self.args[0]


class RankedFile(MappedFile):
    """Base of the banks: the best M candidates of every row, by falling similarity.

    Its arrays include ``sent_ids (E,)``, ``image_row (E,)``, ``self_similarity (E,)``, and the
    rankings ``neighbors (R, M)`` and ``similarities (R, M)`` with ``row_checksums (R, 2)``.

    Args:
        path: The file.
    """

    MAKE_COMMAND = 'python tools/mine_negatives.py CONFIG'
    ERROR = BankError

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        # Whether this process has compared each ranking with its checksums.
        self._compared: bytearray | None = None

    def __len__(self) -> int:
        return len(self.sent_ids)

    @property
    def sent_ids(self) -> np.ndarray:
        """Sentence ids ``(E,)``, rising."""
        return self.arrays['sent_ids']

    @property
    def image_row(self) -> np.ndarray:
        """Row ``(E,)`` of every expression's own image."""
        return self.arrays['image_row']

    @property
    def stored(self) -> int:
        """Candidates M stored per ranking."""
        return self.arrays['neighbors'].shape[1]

    @abstractmethod
    def _ranking_name(self, row: int) -> str:
        """Name a ranking, for messages."""

    def _index(self, sent_id: int, expression: str | None) -> int:
        index = int(self.sent_ids.searchsorted(sent_id))
        if index == len(self) or self.sent_ids[index] != sent_id:
            raise UnknownSentenceError(
                f'the {self.KIND} {self.path} has no expression {sent_id} ({expression!r}): it was '
                f'made for {self.title}. Mine one for this data set with `{self.MAKE_COMMAND}`'
            )
        return index

    def _compare(self, rows: Iterable[int]) -> None:
        """Compare some rankings with their checksums, if they were not yet."""
        if self._compared is None:
            number = len(self.arrays['neighbors'])
            self._compared = bytearray(b'\0' if self.checked else b'\1') * number
        seen, arrays = self._compared, self.arrays
        new = [row for row in rows if not seen[row]]
        if not new:
            return
        for name, column in zip(RANKINGS, arrays['row_checksums'][new].T.tolist()):
            table = arrays[name]
            for row, written in zip(new, column):
                if checksum(table[row]) != written:
                    which = self._ranking_name(row)
                    raise self.damaged(f'{name} of {which} is not what was written')
        for row in new:
            seen[row] = 1

    @property
    def title(self) -> str:
        """What the bank was made for, for messages."""
        made = self.metadata
        fingerprint = str(made.get('fingerprint'))[:12]
        return f'{made.get("dataset")!r}, split {made.get("split")!r} (fingerprint {fingerprint})'

    def check(self, fingerprint: str, name: str = 'the given data set') -> None:
        """Refuse the bank of another data set.

        Args:
            fingerprint: Of the data set at hand.
            name: What the message calls that data set.

        Raises:
            BankError: The bank has another fingerprint.
        """
        if self.metadata.get('fingerprint') != fingerprint:
            raise BankError(
                f'the {self.KIND} {self.path} was made for {self.title}, not for {name} '
                f'(fingerprint {fingerprint[:12]}): their images or expressions differ. Delete it '
                f'or name another path, then mine with `{self.MAKE_COMMAND}`'
            )
