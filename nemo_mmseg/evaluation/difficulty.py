"""Slices of the evaluated expressions by what makes them difficult."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from nemo_mmseg.utils.position_words import position_cells

from .scores import ExpressionScores

CROSS = '*'
_SIZE_WORD = re.compile(
    r'\b(?:(?:larg|hug)(?:e|er|est)|small(?:er|est)?|big(?:ger|gest)?|tin(?:y|ier|iest)|'
    r'(?:tall|short)(?:er|est)|'
    r'littl(?:e|est)|giant|enormous|miniature)\b',
    re.IGNORECASE,
)

# Names of all slices in the order in which they are shown, and the slice of each expression.
Slices = tuple[tuple[str, ...], np.ndarray]


def _bins(
    values: np.ndarray, starts: Sequence[float], labels: Sequence[str], outside: str
) -> Slices:
    """Slice numbers: in slice i ``starts[i] <= value < starts[i + 1]``, below them ``outside``."""
    index = np.searchsorted(starts, values, side='right') - 1
    return (*labels, outside), np.where(index < 0, len(labels), index)


def _by_distractors(scores: ExpressionScores) -> Slices:
    return _bins(scores.num_distractors, (0, 1, 2, 3), ('0', '1', '2', '3+'), 'unknown')


def _by_length(scores: ExpressionScores) -> Slices:
    words = np.array([len(expression.split()) for expression in scores.expressions], dtype=np.int64)
    return _bins(words, (1, 6, 8, 11, 21), ('1-5', '6-7', '8-10', '11-20', '21+'), 'unknown')


def _by_area(scores: ExpressionScores) -> Slices:
    starts = (np.nextafter(0, 1), 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    labels = ('0-1%', '1-2%', '2-4%', '4-8%', '8-16%', '16-32%', '32-100%')
    return _bins(scores.target_area, starts, labels, 'no target')


def _by_position(scores: ExpressionScores) -> Slices:
    placed = [_has_position(expression) for expression in scores.expressions]
    return ('without', 'with'), np.array(placed, dtype=np.int64)


@lru_cache(maxsize=2**16)  # takes 60 us; crossed slices and the next epoch ask again
def _has_position(expression: str) -> bool:
    return len(position_cells(expression, 3, 3)) < 9


def _by_size_word(scores: ExpressionScores) -> Slices:
    sized = [bool(_SIZE_WORD.search(expression)) for expression in scores.expressions]
    return ('without', 'with'), np.array(sized, dtype=np.int64)


DIFFICULTIES: dict[str, Callable[[ExpressionScores], Slices]] = {
    'distractors': _by_distractors,
    'length': _by_length,
    'area': _by_area,
    'position': _by_position,
    'size_word': _by_size_word,
}


def difficulties(by: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of some difficulties.

    Args:
        by: Names as :func:`slice_by` takes them, one name, or None.

    Raises:
        ValueError: A name is unknown.
    """
    names = (by,) if isinstance(by, str) else tuple(by or ())
    unknown = {part for name in names for part in name.split(CROSS)} - set(DIFFICULTIES)
    if unknown:
        raise ValueError(
            f'no difficulty is called {" or ".join(map(repr, sorted(unknown)))}: there are '
            f"{list(DIFFICULTIES)}, and some of them crossed, as in 'position{CROSS}length'"
        )
    return names


def slice_by(scores: ExpressionScores, by: str) -> dict[str, np.ndarray]:
    """Divide expressions by one difficulty, or by several crossed ones.

    =================  ================================================================
    name               slices
    =================  ================================================================
    ``'distractors'``  0, 1, 2, 3+ other objects of the referent's category
    ``'length'``       1-5, 6-7, 8-10, 11-20 (the NeMo paper's), 21+ words between
                       spaces
    ``'area'``         share of the image that the ground truth covers, in per cent:
                       above 0 and below 1, from there to below 2, 4, 8, 16, 32, 32 and
                       more. A cell of a 2x2 mosaic shows an object at a quarter of its
                       area, which is two slices less
    ``'position'``     with, without words that place the referent in the image, as
                       NeMoMosaic understands them on a 3x3 grid
    ``'size_word'``    with, without a word such as "big", "smaller", "largest", "tiny"
    =================  ================================================================

    Expressions of which this is not known (no number of distractors, no words) make the slice
    ``unknown``, those with an empty ground truth the slice ``no target``. So the slices always add
    up to the whole.

    Args:
        scores: Table of E expressions.
        by: A name of the table, or names joined by ``*``: ``'position*length'``.

    Returns:
        The expressions ``(E,)`` bool of each slice that holds one. Each expression is in one slice.

    Raises:
        ValueError: A name is unknown.
    """
    labels, index = ('',), np.zeros(len(scores), dtype=np.int64)
    for name in difficulties(by)[0].split(CROSS):
        parts, place = DIFFICULTIES[name](scores)
        labels = [f'{first},{second}'.lstrip(',') for first in labels for second in parts]
        index = index * len(parts) + place
    slices = {label: index == row for row, label in enumerate(labels)}
    return {label: where for label, where in slices.items() if where.any()}
