"""Two runs on the same expressions, side by side: on all of them, and by difficulty."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from prettytable import PrettyTable

from .bootstrap import paired_bootstrap
from .difficulty import difficulties, slice_by
from .predictions import write_csv
from .scores import ExpressionScores

# The NeMo paper's: gains by negatives in the image, size, length, and length by position words.
ANALYSES = ('distractors', 'length', 'area', 'position', 'position*length')
WHOLE = 'all'


@dataclass(frozen=True)
class ComparisonRow:
    """One measure of two runs on one slice of the expressions; measures are in per cent.

    Attributes:
        by: Difficulty that the slice belongs to; ``'all'`` for the whole.
        slice: Name of the slice; ``'all'`` for the whole.
        expressions: Number of expressions.
        images: Number of images.
        measure: Its name, see :meth:`ExpressionScores.ratios`.
        first: Measure of the first run.
        second: Measure of the second run.
        difference: Second minus first.
        low: Lower end of the interval of the difference; nan for fewer than two images.
        high: Upper end.
    """

    by: str
    slice: str
    expressions: int
    images: int
    measure: str
    first: float
    second: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class RunComparison:
    """The differences of two runs.

    Attributes:
        rows: The whole first, then slice by slice; of each one row per measure.
        names: Names of the two runs.
        level: Share of the resamples inside an interval.
        resamples: Number of resamples.
    """

    rows: list[ComparisonRow]
    names: tuple[str, str] = ('A', 'B')
    level: float = 0.95
    resamples: int = 10_000

    @property
    def measures(self) -> list[str]:
        """Names of the measures, the overall and the mean IoU first."""
        return list(dict.fromkeys(row.measure for row in self.rows))

    def of(self, measure: str) -> list[ComparisonRow]:
        """Return the rows of one measure.

        Raises:
            ValueError: The measure was not compared.
        """
        rows = [row for row in self.rows if row.measure == measure]
        if not rows:
            raise ValueError(f'{measure!r} was not compared, but {self.measures}')
        return rows

    def table(self, measures: Sequence[str] | None = None) -> str:
        """Return a text to print: all measures on the whole, then the slices.

        Args:
            measures: Those shown for the slices; None for the overall and the mean IoU.
        """
        first, second = self.names
        change = f'{second} - {first}'
        whole = [row for row in self.rows if row.by == WHOLE]
        table = PrettyTable(field_names=['measure', first, second, change])
        table.add_rows([[row.measure, *_cells(row)] for row in whole])
        parts = [
            f'{whole[0].expressions} expressions of {whole[0].images} images, in per cent; in '
            f'brackets the {100 * self.level:g} % interval of the difference over test images '
            f'({self.resamples} paired bootstrap resamples)',
            table.get_string(),
        ]
        for measure in measures or self.measures[:2]:
            table = PrettyTable(
                field_names=['by', measure, 'expressions', 'images', first, second, change]
            )
            table.align['by'] = table.align[measure] = 'l'
            rows = self.of(measure)
            for row, after in zip(rows, [*rows[1:], None]):
                ends = after is None or after.by != row.by
                cells = [row.by, row.slice, row.expressions, row.images, *_cells(row)]
                table.add_row(cells, divider=ends)
            parts.append(table.get_string())
        return '\n'.join(parts)

    def write_csv(self, path: str | os.PathLike) -> None:
        """Write all rows, one line each, with the names of :class:`ComparisonRow` as the header.

        Args:
            path: File to write; its folder is made. Values that are nan are left empty.
        """
        write_csv(path, [vars(row) for row in self.rows])


def _cells(row: ComparisonRow) -> list[str]:
    interval = '' if np.isnan(row.low) else f' [{row.low:+.2f}, {row.high:+.2f}]'
    cells = f'{row.first:.2f}', f'{row.second:.2f}', f'{row.difference:+.2f}{interval}'
    return ['-' if 'nan' in cell else cell for cell in cells]


def match_runs(
    first: ExpressionScores, second: ExpressionScores
) -> tuple[ExpressionScores, ExpressionScores]:
    """Bring the expressions of two runs into one order, that of their sentence ids.

    Raises:
        ValueError: The runs are of different data sets or splits, or one holds an expression twice.
    """
    runs = []
    for name, run in (('first', first), ('second', second)):
        order = np.argsort(run.sent_ids, kind='stable')
        twice = run.sent_ids[order][1:][np.diff(run.sent_ids[order]) == 0]
        if twice.size:
            raise ValueError(
                f'sent_id {twice[0]} appears twice in the {name} run. The ids of several data sets '
                'may collide: evaluate each data set by itself, and compare those results'
            )
        runs.append(run.take(order))
    first, second = runs
    missing = np.setxor1d(first.sent_ids, second.sent_ids)
    if missing.size:
        raise ValueError(
            f'{missing.size} expressions are in one run only (sent_id {missing[0]}), of '
            f'{len(first)} and {len(second)}: are they of the same split?'
        )
    if other := _other_data(first, second):
        raise ValueError(f'the two runs are of different data sets: {other}')
    return first, second


def _other_data(first: ExpressionScores, second: ExpressionScores) -> str:
    """Say why two runs with the same ids are of different data sets; empty if they are not.

    Most expressions must agree, not all: LAVT's data sets keep the words as typed, CRIS's have no
    punctuation. Sizes may differ (LAVT compares at 480x480), shares of the image hardly do.
    """
    for sent_id, image, other in zip(first.sent_ids, first.images, second.images):
        if os.path.basename(image) != os.path.basename(other):
            return f'sent_id {sent_id} belongs to {image} and to {other}'
    pairs = zip(first.sent_ids, first.expressions, second.expressions)
    differ = [row for row in pairs if _letters(row[1]) != _letters(row[2])]
    if len(differ) > len(first) / 2:
        return (
            f'{len(differ)} of {len(first)} expressions differ, e.g. sent_id {differ[0][0]}, '
            f'{differ[0][1]!r} and {differ[0][2]!r}'
        )
    apart = np.abs(first.target_area - second.target_area).mean() if len(first) else 0.0
    if apart > 0.01:
        return f'their ground truth differs by {apart:.1%} of the image on average'
    return ''


def _letters(expression: str) -> str:
    return ''.join(filter(str.isalnum, expression.lower()))


def compare_runs(
    first: ExpressionScores,
    second: ExpressionScores,
    by: Sequence[str] = ANALYSES,
    thresholds: Sequence[float] | None = None,
    names: Sequence[str] = ('A', 'B'),
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> RunComparison:
    """Compare two runs on all expressions and by difficulty.

    The slices follow what the first run says of an expression (LAVT's and CRIS's data sets spell
    some sentences differently). Slices that hold no expression are left out.

    Args:
        first: The run that is subtracted, e.g. without NeMo.
        second: The other run, e.g. with NeMo, on the same expressions in any order.
        by: Difficulties, see :func:`slice_by`. Defaults to those of the NeMo paper (ECCV 2024).
        thresholds: The X of Pr@X; None for the usual ones.
        names: Names of the two runs.
        resamples: See :func:`paired_bootstrap`.
        level: See :func:`paired_bootstrap`.
        seed: See :func:`paired_bootstrap`.

    Returns:
        The comparison.

    Raises:
        ValueError: The runs do not fit together, or a difficulty is unknown.
    """
    first, second = match_runs(first, second)
    slices = [(WHOLE, WHOLE, np.ones(len(first), dtype=bool))]
    for name in difficulties(by):
        slices += [(name, label, where) for label, where in slice_by(first, name).items()]
    sets = np.stack([where for *_, where in slices])
    result = paired_bootstrap(first, second, sets, thresholds, resamples, level, seed)
    values = np.stack([result.first, result.second, result.difference, result.low, result.high])
    rows = []
    for row, (name, label, where) in enumerate(slices):
        numbers = int(where.sum()), len(set(first.images[where]))
        for column, measure in enumerate(result.measures):
            found = values[:, row, column].tolist()
            rows.append(ComparisonRow(name, label, *numbers, measure, *found))
    return RunComparison(rows, tuple(names), level, resamples)
