"""The page about a grid of runs: means, spreads over seeds, and gains over the baseline."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ..evaluation import ExpressionScores, paired_bootstrap, slice_by
from ..evaluation.run_comparison import match_runs
from .page import figure_png, html_table, image_tag, markdown_table, write_page, write_text

MEASURES = ('oIoU', 'mIoU', 'Pr@0.5')
NOTES = (
    'Per cent. ± is the standard deviation over seeds. A gain is the row minus the baseline with '
    'the same seeds; in brackets its 95 % interval over test images (paired bootstrap: images are '
    'drawn with all their expressions of all seeds), in which the spread over seeds is not '
    'contained; behind it ± the standard deviation of the gain over seeds, beside which it should '
    'be read.'
)


class Gain(NamedTuple):
    """A row minus the baseline on some expressions, in points.

    Attributes:
        label: Of the slice.
        expressions: Their number (of one seed).
        mean: Over all seeds' expressions together.
        low: Lower end of the interval over test images.
        high: Upper end.
        seeds: The gain of each seed.
    """

    label: str
    expressions: int
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        text = f'{self.mean:+.2f}'
        if not np.isnan(self.low):
            text += f' [{self.low:+.2f}, {self.high:+.2f}]'
        return text + _spread(self.seeds)


def _spread(values: Sequence[float]) -> str:
    return f' ± {np.std(values, ddof=1):.2f}' if len(values) > 1 else ''


def join_scores(parts: Sequence[ExpressionScores]) -> ExpressionScores:
    """The expressions of several splits, or of several seeds, one after the other."""
    columns = {}
    for item in fields(ExpressionScores):
        values = [getattr(part, item.name) for part in parts]
        if isinstance(values[0], np.ndarray):
            columns[item.name] = np.concatenate(values)
        elif isinstance(values[0], list):
            columns[item.name] = sum(values, [])
    return replace(parts[0], **columns)


def read_scores(experiment: Any, root: str | os.PathLike) -> dict[str, dict[int, ExpressionScores]]:
    """The results of the finished runs: by row and seed, of all splits together.

    Args:
        experiment: A :class:`nemo_mmseg.apis.experiment.Experiment`.
        root: Folder of all experiments.
    """
    scores: dict[str, dict[int, ExpressionScores]] = {}
    for run in experiment.cells(root):
        if run.finished:
            parts = [ExpressionScores.read(run.folder / split) for split in experiment.splits]
            scores.setdefault(run.row, {})[run.seed] = join_scores(parts)
    return scores


def gains(
    baseline: dict[int, ExpressionScores],
    row: dict[int, ExpressionScores],
    measure: str = 'mIoU',
    by: str | None = None,
) -> list[Gain]:
    """Gains of a row over the baseline, on all expressions or slice by slice.

    Args:
        baseline: Scores by seed.
        row: Scores by seed; seeds that are not in both are left out.
        measure: Of ``MEASURES``.
        by: A difficulty, or None for all expressions.

    Returns:
        Slice by slice; nothing where the two have no seed in common.
    """
    pairs = [match_runs(baseline[seed], row[seed]) for seed in baseline if seed in row]
    if not pairs:
        return []
    first, second = (join_scores([pair[side] for pair in pairs]) for side in (0, 1))
    everything = [('all', np.ones(len(first), dtype=bool))]
    slices = everything if by is None else slice_by(first, by).filled
    sets = np.stack([where for _, where in slices])
    whole = paired_bootstrap(first, second, sets)
    column, size = whole.measures.index(measure), len(pairs[0][0])
    found = []
    for at, (label, where) in enumerate(slices):
        each = [
            second.summary(where=part)[measure] - first.summary(where=part)[measure]
            for part in _seed_parts(where, size)
        ]
        number = int(where[:size].sum())
        values = (x[at, column] for x in (whole.difference, whole.low, whole.high))
        found.append(Gain(label, number, *map(float, values), tuple(each)))
    return found


def _seed_parts(where: np.ndarray, size: int) -> list[np.ndarray]:
    """A set of the joined expressions, seed by seed."""
    number = np.arange(len(where)) // size
    return [where & (number == seed) for seed in range(len(where) // size)]


def score_rows(experiment: Any, scores: dict[str, dict[int, ExpressionScores]]) -> tuple:
    """Head and rows of the table of means."""
    head = ['', 'seeds', *MEASURES, *(f'gain in {m}' for m in MEASURES[:2])]
    rows = []
    for name, runs in scores.items():
        summaries = [run.summary() for run in runs.values()]
        cells = []
        for measure in MEASURES:
            values = [summary[measure] for summary in summaries]
            cells.append(f'{np.mean(values):.2f}{_spread(values)}')
        for measure in MEASURES[:2]:
            known = name != experiment.baseline and experiment.baseline in scores
            found = gains(scores[experiment.baseline], runs, measure) if known else []
            cells.append(str(found[0]) if found else '')
        rows.append([name, len(runs), *cells])
    return head, rows


def plot_gains(by_row: dict[str, list[Gain]], title: str) -> Figure:
    """Gains with their intervals, a panel a row; small dots are the seeds."""
    figure = Figure(figsize=(max(5.0, 2.6 * len(by_row)), 3.4), layout='constrained')
    axes = figure.subplots(1, len(by_row), sharey=True, squeeze=False)[0]
    for axis, (name, found) in zip(axes, by_row.items()):
        for at, gain in enumerate(found):
            axis.vlines(at, gain.low, gain.high, color='#1f5fa8', linewidth=2)
            axis.plot(at, gain.mean, 'o', color='#1f5fa8')
            axis.plot([at + 0.2] * len(gain.seeds), gain.seeds, '.', color='#c44e52')
        labels = [f'{gain.label}\nn={gain.expressions}' for gain in found]
        axis.set_xticks(range(len(found)), labels, fontsize=8)
        axis.set_xlim(-0.6, len(found) - 0.4)
        axis.axhline(0, color='black', linewidth=0.8)
        axis.set_title(name, fontsize=9)
    axes[0].set_ylabel('gain in mIoU, points')
    figure.suptitle(title, fontsize=10)
    return figure


def write_experiment_page(
    experiment: Any, root: str | os.PathLike, command: str
) -> tuple[Path, Path]:
    """Write ``<name>.html``, which needs no other file, ``<name>.md`` and its plots.

    Args:
        experiment: A :class:`nemo_mmseg.apis.experiment.Experiment`; what of it is finished is
            shown.
        root: Folder of all experiments, which gets the pages.
        command: The command line that makes the page.

    Returns:
        The two pages.
    """
    scores, root = read_scores(experiment, root), Path(root)
    done, cells = sum(map(len, scores.values())), experiment.cells(root)
    about = [
        experiment.question,
        f'{done} of {len(cells)} runs are finished: {len(experiment.rows)} rows with seeds '
        f'{", ".join(map(str, experiment.seeds))}, each {experiment.iterations} iterations; the '
        f'last checkpoint is evaluated on {", ".join(experiment.splits)} together. The baseline '
        f'is "{experiment.baseline}".',
        *(f'Cut: {text}' for text in experiment.cut),
        NOTES,
    ]
    parts = [html_table(*score_rows(experiment, scores))]
    texts = [markdown_table(*score_rows(experiment, scores))]
    others = [name for name in scores if name != experiment.baseline]
    for by in (None, *experiment.by) if experiment.baseline in scores else ():
        found = {n: gains(scores[experiment.baseline], scores[n], 'mIoU', by) for n in others}
        found = {name: values for name, values in found.items() if values}
        if not found:
            continue
        title = f'Gain in mIoU by {by}' if by else 'Gain in mIoU'
        picture = figure_png(plot_gains(found, f'{title}, over "{experiment.baseline}"'))
        file = f'{experiment.name}_{(by or "all").replace("*", "_")}.png'
        (root / file).write_bytes(picture)
        parts += [f'<h2>{title}</h2>', image_tag(picture, 'png', title)]
        texts += [f'## {title}', f'![{title}]({file})']
        if by:
            labels = list(dict.fromkeys(g.label for values in found.values() for g in values))
            rows = [
                [name, *({g.label: str(g) for g in values}.get(key, '') for key in labels)]
                for name, values in found.items()
            ]
            parts.append(html_table(['', *labels], rows))
            texts.append(markdown_table(['', *labels], rows))
    pages = root / f'{experiment.name}.html', root / f'{experiment.name}.md'
    body = ''.join(f'<p>{html.escape(text)}</p>' for text in about if text) + '\n'.join(parts)
    body += f'<h2>Made by</h2><pre>{html.escape(command)}</pre>'
    write_page(pages[0], experiment.name, body)
    made = f'## Made by\n\n```bash\n{command}\n```'
    lines = [f'# {experiment.name}', *filter(None, about), *texts, made]
    write_text(pages[1], '\n\n'.join(lines) + '\n')
    return pages
