"""Two runs on the same expressions, side by side: on all of them, and by difficulty."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from prettytable import PrettyTable

from .bootstrap import paired_bootstrap
from .difficulty import check_by, slice_by
from .predictions import write_csv
from .scores import ExpressionScores

# The NeMo paper's: gains by negatives in the image, size, length, and length by position words.
ANALYSES = ('distractors', 'length', 'area', 'position', 'position*length')
WHOLE = 'all'


@dataclass(frozen=True)
class ComparisonRow:
    """One measure of two runs on one slice of the expressions; measures are in per cent.

    Args:
        by: Difficulty that the slice belongs to; `'all'` for the whole.
        slice: Name of the slice; `'all'` for the whole.
        expressions: Number of expressions.
        images: Number of images.
        measure: `oIoU`, `mIoU` or `Pr@X`; where expressions may describe nothing `cIoU`, `gIoU`,
            `N-acc`, `T-acc` or `Pr@X`, see `GeneralizedCounts`.
        first: Of the first run.
        second: Of the second run.
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
    """What is known of the difference of two runs.

    Args:
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
        """The rows of one measure.

        Raises:
            ValueError: If the measure was not compared.
        """
        rows = [row for row in self.rows if row.measure == measure]
        if not rows:
            raise ValueError(f'{measure!r} was not compared, but {self.measures}')
        return rows

    def table(self, measures: Sequence[str] | None = None) -> str:
        """Text to print: all measures on the whole, then the slices.

        Args:
            measures: Those shown for the slices. Defaults to the overall and the mean IoU.
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
        """Writes all rows, one line each, with the names of `ComparisonRow` as the header.

        Args:
            path: File to write; its folder is made. What is not known (nan) is left empty.
        """
        write_csv(path, [vars(row) for row in self.rows])


def _cells(row: ComparisonRow) -> list[str]:
    interval = '' if np.isnan(row.low) else f' [{row.low:+.2f}, {row.high:+.2f}]'
    cells = f'{row.first:.2f}', f'{row.second:.2f}', f'{row.difference:+.2f}{interval}'
    return ['-' if 'nan' in cell else cell for cell in cells]


def match_runs(
    first: ExpressionScores, second: ExpressionScores
) -> tuple[ExpressionScores, ExpressionScores]:
    """Brings the expressions of two runs into one order, that of their sentence ids.

    Raises:
        ValueError: If the runs hold other expressions, images or truths, or one expression twice;
            says which.
    """
    runs = []
    for name, run in (('first', first), ('second', second)):
        order = np.argsort(run.sent_ids, kind='stable')
        twice = run.sent_ids[order][1:][np.diff(run.sent_ids[order]) == 0]
        if twice.size:
            # The results do not say which data set an expression is of.
            raise ValueError(
                f'sent_id {twice[0]} appears twice in the {name} run: are its results of several '
                'data sets together, whose ids collide? Evaluate each data set by itself, and '
                'compare those results'
            )
        runs.append(run.take(order))
    first, second = runs
    missing = np.setxor1d(first.sent_ids, second.sent_ids)
    if missing.size:
        raise ValueError(
            f'{missing.size} expressions are in one run only (sent_id {missing[0]}), of '
            f'{len(first)} and {len(second)}: are they of the same split?'
        )
    for ours, theirs, sent_id in zip(first.images, second.images, first.sent_ids):
        if os.path.basename(ours) != os.path.basename(theirs):
            raise ValueError(
                f'sent_id {sent_id} belongs to {ours} in one run and to {theirs} in the other: '
                'they are of different data sets'
            )
    _check_texts(first, second)
    # Sizes may differ (LAVT compares at 480x480), shares of the image hardly do.
    apart = np.abs(first.target_area - second.target_area).mean() if len(first) else 0.0
    if apart > 0.01:
        raise ValueError(
            f'the true masks of the two runs differ by {apart:.1%} of the image on average: they '
            'are of different data sets'
        )
    return first, second


def _check_texts(first: ExpressionScores, second: ExpressionScores) -> None:
    """Refuses runs of which most expressions read differently, e.g. RefCOCO's and RefCOCO+'s.

    Some may: LAVT's data sets hold texts as they were typed, CRIS's without punctuation.
    """
    texts = list(zip(first.expressions, second.expressions, first.sent_ids))
    differ = [row for row in texts if _letters(row[0]) != _letters(row[1])]
    if len(differ) > len(texts) / 2:
        ours, theirs, sent_id = differ[0]
        raise ValueError(
            f'{len(differ)} of {len(texts)} expressions read differently in the two runs, e.g. '
            f'sent_id {sent_id}, {ours!r} and {theirs!r}: they are of different data sets'
        )


def _letters(text: str) -> str:
    return ''.join(filter(str.isalnum, text.lower()))


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
    """Compares two runs on all expressions and by difficulty.

    Slices follow what the first run says of an expression (LAVT's and CRIS's data sets spell some
    sentences differently). Slices that hold no expression are left out.

    Args:
        first: Run that is subtracted, e.g. without NeMo.
        second: The other run, e.g. with NeMo, on the same expressions in any order.
        by: Difficulties, see `slice_by`. Defaults to those of the NeMo paper (ECCV 2024).
        thresholds: IoU values X of Pr@X; None for the usual ones.
        names: How to call the two runs.
        resamples: See `paired_bootstrap`.
        level: See `paired_bootstrap`.
        seed: See `paired_bootstrap`.

    Returns:
        The comparison.

    Raises:
        ValueError: If the runs do not fit together, or a difficulty is unknown.
    """
    first, second = match_runs(first, second)
    slices = [(WHOLE, WHOLE, np.ones(len(first), dtype=bool))]
    for name in check_by(by):
        slices += [(name, label, where) for label, where in slice_by(first, name).filled]
    sets = np.stack([where for *_, where in slices])
    result = paired_bootstrap(first, second, sets, thresholds, resamples, level, seed)
    image = first.image_index
    values = np.stack([result.first, result.second, result.difference, result.low, result.high])
    rows = [
        ComparisonRow(
            name,
            label,
            int(where.sum()),
            len(np.unique(image[where])),
            measure,
            *values[:, row, column].tolist(),
        )
        for row, (name, label, where) in enumerate(slices)
        for column, measure in enumerate(result.measures)
    ]
    return RunComparison(rows, tuple(names), level, resamples)
