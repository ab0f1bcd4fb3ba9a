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

from nemo_mmseg.evaluation import bootstrap as paired_bootstrap
from nemo_mmseg.evaluation.compare import match_runs
from nemo_mmseg.evaluation.difficulty import slice_by
from nemo_mmseg.evaluation.scores import ExpressionScores
from nemo_mmseg.utils.atomic_write import write_bytes, write_text
from nemo_mmseg.visualization.page import (
    figure_png,
    html_table,
    image_tag,
    markdown_table,
    write_page,
)

Scores = dict[str, dict[int, ExpressionScores]]
NOTES = (
    'Per cent. A value is the mean over seeds of the measure of each run; ± is the standard '
    'deviation over seeds (n - 1). A gain is the mean over seeds of the row minus the baseline '
    'with the same seed. In brackets its 95 % interval over test images (paired bootstrap: images '
    'are drawn with replacement, each brings all its expressions, all runs of both rows see the '
    'same draws): how far other test images would move this mean of these runs. How far other '
    'seeds would move it is not contained; the ± behind it, the standard deviation of the gain '
    'over seeds, tells.'
)
PLOT_NOTE = 'Blue: gain and 95 % interval over test images; red: each seed. '


class Gain(NamedTuple):
    """A row minus the baseline on some expressions, in points.

    Attributes:
        label: Of the slice.
        expressions: Their number (of one seed).
        mean: Over seeds.
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


def _mean(values: Sequence[float]) -> str:
    return f'{np.mean(values):.2f}{_spread(values)}'


def join_scores(parts: Sequence[ExpressionScores]) -> ExpressionScores:
    """The expressions of several splits, one after the other."""
    columns = {}
    for item in fields(parts[0]):
        values = [getattr(part, item.name) for part in parts]
        if isinstance(values[0], np.ndarray):
            columns[item.name] = np.concatenate(values)
        elif isinstance(values[0], list):
            columns[item.name] = sum(values, [])
    return replace(parts[0], **columns)


def read_scores(experiment: Any, root: str | os.PathLike) -> Scores:
    """The results of the finished runs: by row and seed, of all splits together.

    Args:
        experiment: A :class:`nemo_mmseg.apis.experiment.Experiment`.
        root: Folder of all experiments.
    """
    scores: Scores = {name: {} for name in experiment.rows}
    for run in experiment.cells(root):
        if run.finished:
            parts = [ExpressionScores.read(run.folder / split) for split in experiment.splits]
            scores[run.row][run.seed] = join_scores(parts)
    return {name: runs for name, runs in scores.items() if runs}


def shown_measures(run: ExpressionScores) -> list[str]:
    """The overall and the mean IoU, and the first Pr@X."""
    names = list(run.ratios())
    return [*names[:2], next(name for name in names if name.startswith('Pr@'))]


def gains(
    baseline: dict[int, ExpressionScores],
    row: dict[int, ExpressionScores],
    by: str | None = None,
) -> dict[str, list[Gain]]:
    """Gains of a row over the baseline, on all expressions or slice by slice.

    Args:
        baseline: Scores by seed.
        row: Scores by seed; seeds that are not in both are left out.
        by: A difficulty, or None for all expressions.

    Returns:
        By measure the gains slice by slice; nothing where the two have no seed in common.
    """
    pairs = [match_runs(baseline[seed], row[seed]) for seed in baseline if seed in row]
    if not pairs:
        return {}
    firsts, seconds = zip(*pairs)
    slices = _slices(firsts[0], by)
    result = paired_bootstrap(firsts, seconds, np.stack(list(slices.values())))
    each = [
        [(first.summary(where=where), second.summary(where=where)) for first, second in pairs]
        for where in slices.values()
    ]
    return {
        measure: [
            Gain(
                label,
                int(where.sum()),
                *(float(x[at, column]) for x in (result.difference, result.low, result.high)),
                tuple(second[measure] - first[measure] for first, second in each[at]),
            )
            for at, (label, where) in enumerate(slices.items())
        ]
        for column, measure in enumerate(result.measures)
    }


def _slices(run: ExpressionScores, by: str | None) -> dict[str, np.ndarray]:
    return {'all': np.ones(len(run), bool)} if by is None else dict(slice_by(run, by).filled)


def score_rows(experiment: Any, scores: Scores) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of means."""
    measures = shown_measures(next(iter(next(iter(scores.values())).values())))
    head = ['', 'seeds', *measures, *(f'gain in {m}' for m in measures[:2])]
    rows = []
    for name, runs in scores.items():
        summaries = [run.summary() for run in runs.values()]
        known = name != experiment.baseline and experiment.baseline in scores
        found = gains(scores[experiment.baseline], runs) if known else {}
        cells = [_mean([summary[measure] for summary in summaries]) for measure in measures]
        cells += [str(found[measure][0]) if found else '' for measure in measures[:2]]
        rows.append([name, str(len(runs)), *cells])
    return head, rows


def run_rows(experiment: Any, root: str | os.PathLike, scores: Scores) -> tuple:
    """Head and rows of the table of single runs, with their times."""
    measures = shown_measures(next(iter(next(iter(scores.values())).values())))
    rows = []
    for run in experiment.cells(root):
        if run.seed in scores.get(run.row, {}):
            summary = scores[run.row][run.seed].summary()
            minutes = [run.seconds.get(name) for name in ('train', 'test')]
            times = ['' if value is None else f'{value / 60:.1f}' for value in minutes]
            values = [f'{summary[measure]:.2f}' for measure in measures]
            rows.append([run.row, str(run.seed), *values, *times])
    return ['', 'seed', *measures, 'training, minutes', 'evaluation, minutes'], rows


def slice_rows(
    baseline: tuple[str, dict[int, ExpressionScores]],
    found: dict[str, dict[str, list[Gain]]],
    by: str,
    measure: str,
) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of one measure by a difficulty.

    Args:
        baseline: Its name, and its scores by seed.
        found: By row what :func:`gains` gives for the difficulty.
        by: The difficulty.
        measure: The measure.
    """
    name, runs = baseline
    slices = [_slices(run, by) for run in runs.values()]
    labels = list(slices[0])
    numbers = [str(int(slices[0][label].sum())) for label in labels]
    values = [
        _mean([run.summary(where=of[label])[measure] for run, of in zip(runs.values(), slices)])
        for label in labels
    ]
    rows = [['expressions', *numbers], [f'{measure} of {name}', *values]]
    for row, of in found.items():
        texts = {gain.label: str(gain) for gain in of[measure]}
        rows.append([f'gain of {row}', *(texts.get(label, '') for label in labels)])
    return ['', *labels], rows


def plot_gains(panels: dict[str, list[Gain]], title: str) -> Figure:
    """Gains with their intervals; small dots are the seeds.

    Args:
        panels: By the title of a panel its gains, from left to right.
        title: Of the plot, names the measure.
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
    page = _Page(experiment.name, root)
    for text in _about(experiment, root, scores):
        page.text(text)
    if scores:
        page.table(*score_rows(experiment, scores))
    others = [name for name in scores if name != experiment.baseline]
    for by in (None, *experiment.by) if experiment.baseline in scores else ():
        baseline = scores[experiment.baseline]
        found = {name: gains(baseline, scores[name], by) for name in others}
        found = {name: values for name, values in found.items() if values}
        if not found:
            continue
        overall, mean, _ = shown_measures(next(iter(baseline.values())))
        title = f'Gain in {mean} by {by}' if by else f'Gain in {mean}'
        panels = {name: values[mean] for name, values in found.items()}
        if by is None:
            everything = [of[0]._replace(label=name) for name, of in panels.items()]
            panels = {'all expressions': everything}
        page.title(title)
        page.text(PLOT_NOTE)
        figure = plot_gains(panels, f'{title}, over "{experiment.baseline}"')
        page.picture(f'{(by or "all").replace("*", "_")}.png', figure_png(figure), title)
        for measure in (mean, overall) if by else ():
            page.table(*slice_rows((experiment.baseline, baseline), found, by, measure))
    if scores:
        page.title('Each run')
        page.table(*run_rows(experiment, root, scores))
    page.title('Made by')
    page.code('\n'.join(filter(None, [experiment.data, command])))
    return page.write()


def _about(experiment: Any, root: Path, scores: Scores) -> list[str]:
    """What was asked, what is done, how long it took, and what was cut."""
    cells = experiment.cells(root)
    done = [run for run in cells if run.seed in scores.get(run.row, {})]
    images = f', {_size(scores)}' if scores else ''
    minutes = [sum(run.seconds.values()) / 60 for run in done]
    texts = [
        experiment.question,
        f'{len(done)} of {len(cells)} runs are finished: {len(experiment.rows)} rows with seeds '
        f'{", ".join(map(str, experiment.seeds))}, each {experiment.iterations} iterations; the '
        f'last checkpoint is evaluated on {", ".join(experiment.splits)} together{images}. The '
        f'baseline is "{experiment.baseline}".',
        *(f'Cut: {text}' for text in experiment.cut),
        NOTES,
    ]
    if done:
        texts.append(
            f'Time: {sum(minutes) / 60:.1f} hours for the runs shown, {min(minutes):.0f} to '
            f'{max(minutes):.0f} minutes each, as the clock says (of a run that was stopped the '
            'last part only).'
        )
    changed: dict[str, list[str]] = {}
    for run in done:
        changed.setdefault(run.difference(), []).append(f'{run.row}, seed {run.seed}')
    texts += [
        f'Made with other settings than the configs give now: {"; ".join(runs)} ({difference}).'
        for difference, runs in changed.items()
        if difference
    ]
    return [text for text in texts if text]


def _size(scores: Scores) -> str:
    run = next(iter(next(iter(scores.values())).values()))
    return f'{len(run)} expressions of {run.num_images} images'


class _Page:
    """A page in HTML and in Markdown.

    Args:
        name: Its title, and its files' name.
        root: Folder of the files.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.html: list[str] = []
        self.markdown = [f'# {name}']

    def text(self, text: str) -> None:
        self.html.append(f'<p>{html.escape(text)}</p>')
        self.markdown.append(text)

    def title(self, text: str) -> None:
        self.html.append(f'<h2>{html.escape(text)}</h2>')
        self.markdown.append(f'## {text}')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.html.append(html_table(head, rows))
        self.markdown.append(markdown_table(head, rows))

    def picture(self, file: str, content: bytes, title: str) -> None:
        file = f'{self.name}_{file}'
        write_bytes(self.root / file, content)
        self.html.append(image_tag(content, 'png', title))
        self.markdown.append(f'![{title}]({file})')

    def code(self, text: str) -> None:
        self.html.append(f'<pre>{html.escape(text)}</pre>')
        self.markdown.append(f'```bash\n{text}\n```')

    def write(self) -> tuple[Path, Path]:
        pages = self.root / f'{self.name}.html', self.root / f'{self.name}.md'
        write_page(pages[0], self.name, '\n'.join(self.html))
        write_text(pages[1], '\n\n'.join(self.markdown) + '\n')
        return pages
