"""Slices of the evaluated expressions by what makes them difficult."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nemo_mmseg.utils.position_words import position_cells

from .scores import ExpressionScores

CROSS = '*'


@dataclass(frozen=True)
class Slices:
    """One way to divide E expressions: each of them lies in exactly one slice.

    Args:
        by: What divides them, e.g. `'length'`.
        labels: Names of the S slices, in the order in which they are shown.
        index: (E,) int64, the slice of each expression, 0..S-1.
    """

    by: str
    labels: tuple[str, ...]
    index: np.ndarray

    def where(self, label: str) -> np.ndarray:
        """(E,) bool, the expressions of one slice."""
        return self.index == self.labels.index(label)

    @property
    def filled(self) -> list[tuple[str, np.ndarray]]:
        """Label and (E,) bool of each slice that holds an expression."""
        pairs = [(label, self.index == row) for row, label in enumerate(self.labels)]
        return [(label, where) for label, where in pairs if where.any()]


def _bins(
    by: str, values: np.ndarray, starts: Sequence[float], labels: Sequence[str], outside: str
) -> Slices:
    """Slices of numbers: slice i is `starts[i] <= value < starts[i + 1]`, below them `outside`."""
    index = np.searchsorted(starts, values, side='right') - 1
    return Slices(by, (*labels, outside), np.where(index < 0, len(labels), index))


def _by_distractors(scores: ExpressionScores) -> Slices:
    starts, labels = (0, 1, 2, 3), ('0', '1', '2', '3+')
    return _bins('distractors', scores.num_distractors, starts, labels, 'unknown')


def _by_length(scores: ExpressionScores) -> Slices:
    words = np.array([len(text.split()) for text in scores.expressions], dtype=np.int64)
    starts, labels = (1, 6, 8, 11, 21), ('1-5', '6-7', '8-10', '11-20', '21+')
    return _bins('length', words, starts, labels, 'unknown')


def _by_area(scores: ExpressionScores) -> Slices:
    starts = (np.nextafter(0, 1), 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    labels = ('0-1%', '1-2%', '2-4%', '4-8%', '8-16%', '16-32%', '32-100%')
    return _bins('area', scores.target_area, starts, labels, 'no target')


def _by_position(scores: ExpressionScores) -> Slices:
    binds = [_places(text) for text in scores.expressions]
    return Slices('position', ('without', 'with'), np.array(binds, dtype=np.int64))


@lru_cache(maxsize=2**16)  # reading takes 60 us; crossed slices and the next epoch ask again
def _places(text: str) -> bool:
    return len(position_cells(text, 3, 3)) < 9


DIFFICULTIES: dict[str, Callable[[ExpressionScores], Slices]] = {
    'distractors': _by_distractors,
    'length': _by_length,
    'area': _by_area,
    'position': _by_position,
}


def check_by(by: Sequence[str]) -> tuple[str, ...]:
    """Looks whether slices can be made.

    Args:
        by: Names as `slice_by` takes them.

    Returns:
        The names.

    Raises:
        ValueError: If a name is unknown, given twice or crossed with itself.
    """
    names = (by,) if isinstance(by, str) else tuple(by or ())
    for name in names:
        parts = str(name).split(CROSS)
        unknown = [part for part in parts if part not in DIFFICULTIES]
        if unknown:
            raise ValueError(
                f'no difficulty is called {unknown[0]!r}: there are {list(DIFFICULTIES)}, and two '
                f"of them crossed, as in 'position{CROSS}length'"
            )
        if len(set(parts)) < len(parts):
            raise ValueError(f'{name!r} crosses a difficulty with itself')
    if len(set(names)) < len(names):
        raise ValueError(f'a difficulty is given twice in {list(names)}')
    return names


def slice_by(scores: ExpressionScores, by: str) -> Slices:
    """Divides expressions by one difficulty, or by several crossed ones.

    ===============  ==================================================================
    name             slices
    ===============  ==================================================================
    `'distractors'`  0, 1, 2, 3+ other objects of the referent's category
    `'length'`       1-5, 6-7, 8-10, 11-20 (the NeMo paper's), 21+ words between spaces
    `'area'`         share of the image that the true mask covers, in per cent: above 0
                     and below 1, from there to below 2, 4, 8, 16, 32, 32 and more. A
                     cell of a 2x2 mosaic shows an object at a quarter of its area,
                     hence as one of two slices before
    `'position'`     with, without words that place the referent in the image, as
                     NeMoMosaic understands them on a 3x3 grid
    ===============  ==================================================================

    What is not known (no number of distractors, no text) or not there (an empty true mask) has a
    slice of its own, `unknown` or `no target`, so that the slices always add up to the whole.

    Args:
        scores: Values of E expressions.
        by: A name of the table, or names joined by `*`: `'position*length'`.

    Returns:
        The slices.

    Raises:
        ValueError: If a name is unknown.
    """
    check_by([by])
    whole = Slices(by, ('',), np.zeros(len(scores), dtype=np.int64))
    for name in by.split(CROSS):
        part = DIFFICULTIES[name](scores)
        labels = [
            f'{first},{second}'.lstrip(',') for first in whole.labels for second in part.labels
        ]
        index = whole.index * len(part.labels) + part.index
        whole = Slices(by, tuple(labels), index)
    return whole
