"""Draw how much a run gains over another, by difficulty."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: no window, no state shared with others

from nemo_mmseg.evaluation.compare import WHOLE, ComparisonRow, RunComparison
from nemo_mmseg.evaluation.difficulty import CROSS
from nemo_mmseg.utils.atomic_write import atomic_write

COLOR, WHOLE_COLOR = '#1f5fa8', '#999999'
UNITS = dict(
    distractors='distractors', length='words', area='share of the image', position='position words'
)
SMALL = 0.01  # slices with a smaller share of the expressions do not stretch the axis


def plot_comparison(
    comparison: RunComparison,
    path: str | os.PathLike,
    measures: Sequence[str] | None = None,
) -> None:
    """Draw the difference of two runs with its intervals, a column a difficulty, a row a measure.

    The grey line and band are the difference on all expressions and its interval. The number of
    expressions is under each slice. A slice of one image has no interval. The interval of a slice
    with less than 1 % of the expressions may leave the axes, so that the others can be read.

    Args:
        comparison: Result of :func:`nemo_mmseg.evaluation.compare_runs`.
        path: Picture to write (PNG, SVG or PDF, by its ending); its folder is made.
        measures: Measures to draw; None for the overall and the mean IoU.
    """
    measures = measures or comparison.measures[:2]
    grids = []
    for measure in measures:
        rows = comparison.of(measure)
        panels = [list(part) for _, part in groupby(rows, lambda row: row.by)]
        grids.append((panels[0][0], panels[1:] or panels))
    widths = [len(panel) + 1 for panel in grids[0][1]]
    figure = Figure(
        figsize=(max(6.0, 0.5 * sum(widths) + 1.2), 2.9 * len(measures) + 0.9),
        layout='constrained',
    )
    axes = figure.subplots(
        len(measures), len(widths), sharey='row', squeeze=False, width_ratios=widths
    )
    for line, measure, (whole, panels) in zip(axes, measures, grids):
        for axis, panel in zip(line, panels):
            _draw(axis, panel, whole)
        line[0].set_ylabel(f'difference in {measure}, points')
        line[0].set_ylim(*_limits(comparison.of(measure)))
    first, second = comparison.names
    figure.suptitle(
        f'{second} minus {first}, with {100 * comparison.level:g} % intervals over test images'
    )
    for axis, panel in zip(axes[-1], grids[-1][1]):
        if panel[0].by != WHOLE:
            parts = panel[0].by.split(CROSS)
            axis.set_xlabel(', '.join(UNITS[part] for part in parts), fontsize=8)
    number = grids[0][0].expressions
    figure.supxlabel(
        f'grey: all {number} expressions, with their interval; n: expressions of a slice',
        fontsize=8,
    )
    with atomic_write(path) as part:
        figure.savefig(part, dpi=130, format=Path(path).suffix[1:] or 'png')


def _limits(rows: Sequence[ComparisonRow]) -> tuple[float, float]:
    """Return a range with all differences, and the intervals of all but the small slices."""
    number = max(row.expressions for row in rows)
    values = [0.0, *(row.difference for row in rows if not np.isnan(row.difference))]
    for row in rows:
        if row.expressions >= SMALL * number and not np.isnan(row.low):
            values += [row.low, row.high]
    margin = 0.08 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _draw(axis: Axes, panel: list[ComparisonRow], whole: ComparisonRow) -> None:
    """Draw one difficulty of one measure."""
    places = np.arange(len(panel))
    if not np.isnan(whole.low):
        axis.axhspan(whole.low, whole.high, color=WHOLE_COLOR, alpha=0.2, linewidth=0)
    axis.axhline(whole.difference, color=WHOLE_COLOR, linewidth=1)
    axis.axhline(0, color='black', linewidth=0.8)
    gains = np.array([row.difference for row in panel])
    ends = np.array([(row.low, row.high) for row in panel])
    axis.vlines(places, ends[:, 0], ends[:, 1], color=COLOR, linewidth=2)
    axis.plot(places, gains, 'o', color=COLOR, markersize=5)
    labels = [f'{row.slice.replace(",", chr(10))}\nn={row.expressions}' for row in panel]
    axis.set_xticks(places, labels, fontsize=7)
    axis.set_xlim(-0.6, len(panel) - 0.4)
    axis.set_title('' if panel[0].by == WHOLE else f'by {panel[0].by}', fontsize=10)
    axis.grid(axis='y', alpha=0.3)
