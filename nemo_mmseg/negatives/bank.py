"""The bank: the mined negatives of a data set in one memory-mapped safetensors file.

Tensors, for E expressions, I images and M stored images an expression:

=====================  ==============  ============================================================
``sent_ids``           int64 (E,)      sentence ids, rising
``neighbors``          uint16 (E, M)   image rows by falling similarity, equal ones by smaller row;
                                       the own image is not among them (int32 where I > 65,536)
``similarities``       float16 (E, M)  cosine similarities of expression and image
``self_similarity``    float16 (E,)    ... of the expression and its own image
``image_row``          int32 (E,)      row of the expression's own image
``image_ids``          int64 (I,)      image ids
``image_name_bytes``   uint8           file names in UTF-8, one after the other
``image_name_offsets`` int64 (I + 1,)  where each begins
``image_vectors``      float16 (I, D)  unit vectors of the images
=====================  ==============  ============================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemo_mmseg.utils.tensor_file import Names, TensorFile

from .band import Band, BandRule, band_start, band_starts, first_unlike

MINE_COMMAND = 'python tools/mine_negatives.py CONFIG'
FORMAT_VERSION = 1
# By falling size of an element, so that each tensor begins at a multiple of it.
TENSORS = (
    'sent_ids', 'image_ids', 'image_name_offsets', 'image_row', 'neighbors', 'similarities',
    'self_similarity', 'image_vectors', 'image_name_bytes',
)  # fmt: skip
# Expressions looked at together when all bands are sized.
_BLOCK = 8192
# The same where images are compared: a block's cosines with 20,000 images take 80 MB at most.
_ALIKE_BLOCK = 512


@dataclass(frozen=True)
class BankSpec:
    """Where a bank lies and how it is mined.

    Attributes:
        path: The file.
        model: open_clip's name of the CLIP that mines it, e.g. ``'ViT-B-32'``.
        pretrained: Its weights: tag or local file.
        keep: Images stored per expression.
        images: Folder of the negatives; None where they are the data set's own images.
    """

    path: str
    model: str | None = None
    pretrained: str | None = None
    keep: int = 1000
    images: str | None = None


class BankError(RuntimeError):
    """The file is no bank, is damaged, or belongs to another data set."""


class UnknownSentenceError(KeyError):
    """The bank has no such sentence."""

    def __str__(self) -> str:
        return self.args[0]


class _Opened:
    """The memory-mapped tensors of a bank."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f'there is no bank {path}. Mine it with `{MINE_COMMAND}` (training does it by '
                'itself when the config has the NegativeMiningHook)'
            )
        again = f'Delete it and mine it again with `{MINE_COMMAND}`'
        file = TensorFile(path, TENSORS, FORMAT_VERSION, 'bank', again, BankError)
        self.metadata = file.metadata
        vars(self).update(file.arrays)


class NegativeBank:
    """Reads a bank. Opened at first use in each process; a pickle of it holds the path alone.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: At first use, if there is no such file. The message has the command that
            mines it.
        BankError: At first use, if the file is cut short, damaged or no bank.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._opened: _Opened | None = None

    def __getstate__(self) -> dict:
        return dict(path=self.path)

    def __setstate__(self, state: dict) -> None:
        self.__init__(state['path'])

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.path)!r})'

    def __len__(self) -> int:
        return len(self._open().sent_ids)

    def _open(self) -> _Opened:
        if self._opened is None:
            self._opened = _Opened(self.path)
        return self._opened

    @property
    def metadata(self) -> dict[str, Any]:
        """What made the bank: data set, split, fingerprint, model, weights, versions, keep."""
        return self._open().metadata

    @property
    def sent_ids(self) -> np.ndarray:
        """Sentence ids (E,), rising."""
        return self._open().sent_ids

    @property
    def image_names(self) -> Sequence[str]:
        """File names of the I images."""
        opened = self._open()
        return Names(opened.image_name_bytes, opened.image_name_offsets)

    @property
    def image_ids(self) -> np.ndarray:
        """Image ids (I,)."""
        return self._open().image_ids

    @property
    def image_row(self) -> np.ndarray:
        """Row (E,) of every expression's own image."""
        return self._open().image_row

    @property
    def image_vectors(self) -> np.ndarray:
        """Unit vectors (I, D) float16 of the images."""
        return self._open().image_vectors

    @property
    def stored(self) -> int:
        """Images M stored an expression."""
        return self._open().neighbors.shape[1]

    @property
    def candidates(self) -> int:
        """How many images, from the first row on, can be negatives.

        All of them, but where the negatives come from a folder: its images come first in the table,
        then the expressions' own images.
        """
        return self.metadata.get('candidates', len(self.image_ids))

    def _index(self, sent_id: int, expression: str | None) -> int:
        ids = self._open().sent_ids
        index = int(ids.searchsorted(sent_id))
        if index == len(ids) or ids[index] != sent_id:
            text = '' if expression is None else f' ({expression!r})'
            raise UnknownSentenceError(
                f'the bank {self.path} has no sentence {sent_id}{text}: it was made for '
                f'{_name_of(self.metadata)}. Mine one for this data set with `{MINE_COMMAND}`'
            )
        return index

    def row(
        self, sent_id: int, expression: str | None = None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """The stored ranking of an expression.

        Args:
            sent_id: Its sentence id.
            expression: Its text, for the error message.

        Returns:
            Image rows (M,), their similarities (M,) falling, and the similarity to its own image.

        Raises:
            UnknownSentenceError: The bank has no such sentence.
        """
        index = self._index(sent_id, expression)
        opened = self._opened
        own = float(opened.self_similarity[index])
        return opened.neighbors[index], opened.similarities[index], own

    def band(
        self,
        sent_id: int,
        tau: float | None,
        tau_mode: str = 'relative',
        top_k: int = 100,
        i2i_sim_thres: float | None = None,
        expression: str | None = None,
    ) -> Band:
        """The images that are not above the threshold, the best ``top_k`` of them.

        Args:
            sent_id: Sentence id of the expression.
            tau: Upper threshold of the (stored) similarity; images above may show the referent.
            tau_mode: ``'relative'``, ``'absolute'``, ``'margin'`` or ``'rank'``; see
                :class:`BandRule`. Defaults to ``'relative'``.
            top_k: Size of the band.
            i2i_sim_thres: Images more similar than this to the expression's own image are passed
                over, too (cosine of the stored vectors). None for no such threshold.
            expression: The text, for the error message.

        Returns:
            The band; empty where every stored image is dropped.

        Raises:
            UnknownSentenceError: The bank has no such sentence.
        """
        index = self._index(sent_id, expression)
        opened = self._opened
        rows, similarities = opened.neighbors[index], opened.similarities[index]
        own = float(opened.self_similarity[index])
        start = band_start(similarities, own, tau, tau_mode)
        more = len(rows) < self.candidates - 1
        if i2i_sim_thres is None:
            part = slice(start, start + top_k)
            truncated = part.stop > len(rows) and more
            return Band(rows[part], similarities[part], truncated, own, start)
        rows, similarities = rows[start:], similarities[start:]
        found, dropped = first_unlike(
            rows,
            opened.image_vectors,
            opened.image_vectors[opened.image_row[index]],
            i2i_sim_thres,
            top_k,
        )
        truncated = len(found) < top_k and more
        return Band(rows[found], similarities[found], truncated, own, start, rows[dropped])

    def band_sizes(
        self,
        tau: float | None,
        tau_mode: str = 'relative',
        top_k: int = 100,
        i2i_sim_thres: float | None = None,
        without: np.ndarray | None = None,
    ) -> np.ndarray:
        """Number (E,) int64 of images in the band of every expression; see :meth:`band`.

        ``without`` is as in :meth:`left`.
        """
        rule = BandRule(tau, tau_mode, top_k, i2i_sim_thres)
        return np.minimum(self.left([rule], without)[0], top_k)

    def left(self, rules: Sequence[BandRule], without: np.ndarray | None = None) -> np.ndarray:
        """Stored images that no threshold drops, for several rules in one look at the bank.

        Args:
            rules: Their ``top_k`` does not count.
            without: Which images (I,) bool are no negatives whatever their scores, e.g. those that
                a leak guard drops.

        Returns:
            (R, E) int64.
        """
        left = np.stack([self.stored - self._starts(rule) for rule in rules])
        alike = any(rule.i2i_sim_thres is not None for rule in rules)
        if not alike and without is None:
            return left
        places = np.arange(self.stored)
        for part, cosines in self._own_cosines() if alike else self._blocks():
            out = False if without is None else without[self._open().neighbors[part]]
            for row, rule in zip(left, rules):
                most = rule.i2i_sim_thres
                dropped = out if most is None else out | (cosines > most)
                below = places >= self.stored - row[part][:, None]
                row[part] -= np.count_nonzero(below & dropped, axis=1)
        return left

    def _starts(self, rule: BandRule) -> np.ndarray:
        """How many images (E,) of every ranking tau drops."""
        opened = self._open()
        starts = np.zeros(len(self), np.int64)
        for part, _ in self._blocks():
            own = opened.self_similarity[part].astype(np.float64)
            starts[part] = band_starts(opened.similarities[part], own, rule.tau, rule.tau_mode)
        return starts

    def _blocks(self) -> Iterator[tuple[slice, None]]:
        """The expressions, some at a time, and no cosines."""
        for begin in range(0, len(self), _BLOCK):
            yield slice(begin, begin + _BLOCK), None

    def _own_cosines(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Cosines (n, M) of the own image and the stored ones, for some expressions (n,) a time."""
        opened = self._open()
        # As in first_unlike: exact in float64, whatever the order of the sums.
        vectors = opened.image_vectors.astype(np.float64)
        order = np.argsort(opened.image_row, kind='stable')
        for begin in range(0, len(order), _ALIKE_BLOCK):
            part = order[begin : begin + _ALIKE_BLOCK]
            own, which = np.unique(opened.image_row[part], return_inverse=True)
            cosines = vectors[own] @ vectors[: self.candidates].T
            yield part, cosines[which[:, None], opened.neighbors[part]]

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
                f'the bank {self.path} was made for {_name_of(self.metadata)}, not for {name} '
                f'(fingerprint {fingerprint[:12]}): their images or expressions differ. '
                f'Delete it or name another path, then mine with `{MINE_COMMAND}`'
            )


def _name_of(metadata: dict[str, Any]) -> str:
    fingerprint = str(metadata.get('fingerprint'))[:12]
    return (
        f'{metadata.get("dataset")!r}, split {metadata.get("split")!r} (fingerprint {fingerprint})'
    )
