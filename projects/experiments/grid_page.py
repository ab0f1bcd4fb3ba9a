"""The page about a grid of runs: means and spreads over seeds, and gains over the baseline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from nemo_mmseg.evaluation import ExpressionScores, match_runs, paired_bootstrap, slice_by
from nemo_mmseg.utils.atomic_write import atomic_write, write_text

if TYPE_CHECKING:
    from run_grid import Grid

Scores = dict[str, dict[int, ExpressionScores]]  # by row and seed
Rows = list[list[str]]
NOTES = (
    'Values are in per cent: the mean over seeds, ± the standard deviation over seeds (n - 1). A '
    'gain is the row minus the baseline with the same seed. Brackets hold its 95 % interval over '
    'test images (paired bootstrap: images are drawn with replacement, each with all its '
    'expressions, and all runs of both rows see the same draws). The interval tells how far other '
    'test images would move the gain. How far other seeds would move it, the ± behind it tells.'
)
PLOT_NOTE = 'Blue: gain and 95 % interval over test images; red: each seed.'


class Gain(NamedTuple):
    """A row minus the baseline on some expressions, in points.

    Attributes:
        label: Label of the slice.
        expressions: Number of expressions (of one seed).
        mean: Mean over seeds.
        low: Lower end of the interval over test images.
        high: Upper end of the interval.
        seeds: The gain of each seed.
    """

    label: str
    expressions: int
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        interval = '' if np.isnan(self.low) else f' [{self.low:+.2f}, {self.high:+.2f}]'
        return f'{self.mean:+.2f}{interval}{_spread(self.seeds)}'


def _spread(values: Sequence[float]) -> str:
    return f' ± {np.std(values, ddof=1):.2f}' if len(values) > 1 else ''


def _mean(values: Sequence[float]) -> str:
    return f'{np.mean(values):.2f}{_spread(values)}'


def read_scores(grid: Grid, work_dir: str | os.PathLike) -> Scores:
    """Read the results of the finished runs, all splits joined."""
    scores: Scores = {}
    for cell in grid.cells(work_dir):
        if cell.finished:
            parts = [ExpressionScores.read(cell.results / split) for split in grid.splits]
            scores.setdefault(cell.row, {})[cell.seed] = ExpressionScores.join(parts)
    return {row: scores[row] for row in grid.rows if row in scores}


def gains(
    baseline: dict[int, ExpressionScores],
    row: dict[int, ExpressionScores],
    by: str | None = None,
) -> dict[str, list[Gain]]:
    """Compare a row with the baseline, on all expressions or slice by slice.

    Args:
        baseline: Scores by seed.
        row: Scores by seed. Seeds that are not in both are left out.
        by: A difficulty, or None for all expressions.

    Returns:
        By measure the gains of the slices; empty where the two have no seed in common.
    """
    pairs = [match_runs(baseline[seed], row[seed]) for seed in baseline if seed in row]
    if not pairs:
        return {}
    firsts, seconds = zip(*pairs)
    slices = _slices(firsts[0], by)
    result = paired_bootstrap(firsts, seconds, np.stack(list(slices.values())))
    found: dict[str, list[Gain]] = {measure: [] for measure in result.measures}
    for at, (label, where) in enumerate(slices.items()):
        each = [(measured(first, where), measured(second, where)) for first, second in pairs]
        for column, measure in enumerate(result.measures):
            values = (result.difference, result.low, result.high)
            numbers = [float(value[at, column]) for value in values]
            seeds = tuple(second[measure] - first[measure] for first, second in each)
            found[measure].append(Gain(label, int(where.sum()), *numbers, seeds))
    return found


def _slices(run: ExpressionScores, by: str | None) -> dict[str, np.ndarray]:
    return {'all': np.ones(len(run), bool)} if by is None else slice_by(run, by)


def measured(run: ExpressionScores, where: np.ndarray | None = None) -> dict[str, float]:
    """Return all measures in per cent, those that are published as shares, too."""
    summary = run.summary(where=where)
    return {name: 100 * v if name.endswith('-acc') else v for name, v in summary.items()}


def shown_measures(scores: Scores) -> list[str]:
    """Return the overall and the mean IoU, N-acc and T-acc if there are, and the first Pr@X."""
    names = list(next(iter(next(iter(scores.values())).values())).ratios())
    accuracies = [name for name in names if name.endswith('-acc')]
    return [*names[:2], *accuracies, next(name for name in names if name.startswith('Pr@'))]


def score_rows(scores: Scores, baseline: str) -> Rows:
    """Return the table of means; its first row is the head."""
    measures = shown_measures(scores)
    gained = measures[:-1]
    rows = [['', 'seeds', *measures, *(f'gain in {measure}' for measure in gained)]]
    for name, runs in scores.items():
        summaries = [measured(run) for run in runs.values()]
        cells = [_mean([summary[measure] for summary in summaries]) for measure in measures]
        found = gains(scores.get(baseline, {}), runs) if name != baseline else {}
        texts = [str(found[measure][0]) if found else '' for measure in gained]
        rows.append([name, str(len(runs)), *cells, *texts])
    return rows


def run_rows(scores: Scores) -> Rows:
    """Return the table of single runs."""
    measures = shown_measures(scores)
    rows = [['', 'seed', *measures]]
    for row, runs in scores.items():
        for seed, run in sorted(runs.items()):
            summary = measured(run)
            rows.append([row, str(seed), *(f'{summary[measure]:.2f}' for measure in measures)])
    return rows


def slice_rows(
    name: str,
    runs: dict[int, ExpressionScores],
    found: dict[str, list[Gain]],
    by: str,
    measure: str,
) -> Rows:
    """Return the table of one measure by a difficulty.

    Args:
        name: Name of the baseline.
        runs: Scores of the baseline, by seed.
        found: By row the gains in the measure.
        by: The difficulty.
        measure: The measure.
    """
    slices = [(run, _slices(run, by)) for run in runs.values()]
    labels = list(slices[0][1])
    means = [
        _mean([measured(run, where[label])[measure] for run, where in slices]) for label in labels
    ]
    numbers = [str(int(slices[0][1][label].sum())) for label in labels]
    rows = [['', *labels], ['expressions', *numbers], [f'{measure} of {name}', *means]]
    for row, of in found.items():
        texts = {gain.label: str(gain) for gain in of}
        rows.append([f'gain of {row}', *(texts.get(label, '') for label in labels)])
    return rows


def plot_gains(panels: dict[str, list[Gain]], title: str) -> Figure:
    """Draw gains with their intervals, and small dots for the seeds.

    Args:
        panels: By the title of a panel its gains, from left to right.
        title: Title of the plot; names the measure.
    """
    widths = [0.6 + 0.75 * len(found) for found in panels.values()]
    figure = Figure(figsize=(max(5.0, 0.8 + sum(widths)), 3.6), layout='constrained')
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axis, (name, found) in zip(axes, panels.items()):
        for at, gain in enumerate(found):
            axis.vlines(at, gain.low, gain.high, color='#1f5fa8', linewidth=2)
            axis.plot(at, gain.mean, 'o', color='#1f5fa8')
            axis.plot([at + 0.2] * len(gain.seeds), gain.seeds, '.', color='#c44e52')
        labels = [f'{gain.label}\nn={gain.expressions}' for gain in found]
        axis.set_xticks(range(len(found)), labels, fontsize=8)
        axis.set_xlim(-0.6, len(found) - 0.4)
        axis.axhline(0, color='black', linewidth=0.8)
        axis.set_title(name, fontsize=9)
    axes[0].set_ylabel('points')
    figure.suptitle(title, fontsize=10)
    return figure


def _table(rows: Rows) -> str:
    lines = [rows[0], ['---'] * len(rows[0]), *rows[1:]]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def write_grid_page(grid: Grid, work_dir: str | os.PathLike, command: str) -> Path:
    """Write ``<name>.md`` and its plots.

    Args:
        grid: The grid; what of it is finished is shown.
        work_dir: Folder of all grids, which gets the page.
        command: Command line that makes the page.

    Returns:
        The page.
    """
    scores, work_dir = read_scores(grid, work_dir), Path(work_dir)
    done, total = sum(map(len, scores.values())), len(grid.rows) * len(grid.seeds)
    about = (
        f'{done} of {total} runs are finished: {len(grid.rows)} rows with seeds '
        f'{", ".join(map(str, grid.seeds))}, {grid.iterations} iterations each. The last '
        f'checkpoint is evaluated on {", ".join(grid.splits)} together. The baseline is '
        f'"{grid.baseline}".'
    )
    parts = [f'# {grid.name}', grid.question, about, *(f'Cut: {text}' for text in grid.cut), NOTES]
    if scores:
        parts.append(_table(score_rows(scores, grid.baseline)))
    baseline = scores.get(grid.baseline, {})
    for by in (None, *grid.by):
        found = {name: gains(baseline, runs, by) for name, runs in scores.items()}
        found = {name: of for name, of in found.items() if of and name != grid.baseline}
        if not found:
            continue
        overall, mean, *_ = shown_measures(scores)
        title = f'Gain in {mean} by {by}' if by else f'Gain in {mean}'
        panels = {name: of[mean] for name, of in found.items()}
        if by is None:
            every = [of[0]._replace(label=name) for name, of in panels.items()]
            panels = {'all expressions': every}
        file = f'{grid.name}_{(by or "all").replace("*", "_")}.png'
        with atomic_write(work_dir / file) as part:
            figure = plot_gains(panels, f'{title}, over "{grid.baseline}"')
            figure.savefig(part, format='png', dpi=110)
        parts += [f'## {title}', PLOT_NOTE, f'![{title}]({file})']
        for measure in (mean, overall) if by else ():
            of_rows = {name: of[measure] for name, of in found.items()}
            parts.append(_table(slice_rows(grid.baseline, baseline, of_rows, by, measure)))
    if scores:
        parts += ['## Each run', _table(run_rows(scores))]
    commands = '\n'.join(filter(None, [grid.data, command]))
    parts += ['## Made by', f'```bash\n{commands}\n```']
    page = work_dir / f'{grid.name}.md'
    write_text(page, '\n\n'.join(filter(None, parts)) + '\n')
    return page
