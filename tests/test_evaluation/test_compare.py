"""Two runs side by side: rows against the summaries of slices, files, picture, tool."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nemo_mmseg.evaluation import bootstrap as paired_bootstrap
from nemo_mmseg.evaluation.compare import compare_runs
from nemo_mmseg.evaluation.difficulty import slice_by
from nemo_mmseg.evaluation.plot_comparison import plot_comparison
from nemo_mmseg.evaluation.predictions import write_json
from nemo_mmseg.evaluation.scores import ExpressionScores

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'compare_runs.py'
MEASURES = ['oIoU', 'mIoU', 'Pr@0.5', 'Pr@0.6', 'Pr@0.7', 'Pr@0.8', 'Pr@0.9']


def write_run(folder: Path, gain: float, seed: int, num: int = 200) -> Path:
    """Results as `DumpReferringResults` writes them; all runs have the same truth."""
    truth, noise = np.random.default_rng(0), np.random.default_rng(seed)
    records = []
    for sent_id in range(num):
        union = int(truth.integers(1000, 9000))
        quality = truth.random() * 0.8 + gain + 0.05 * noise.random()
        words = truth.choice(['left', 'red', 'man', 'top'], truth.integers(1, 14))
        records.append(
            dict(
                sent_id=sent_id,
                ref_id=None,
                image_id=sent_id // 4,
                image=f'{folder}/{sent_id // 4}.jpg',
                expression=' '.join(words),
                num_distractors=int(truth.integers(5)),
                intersection=int(union * quality),
                union=union,
                iou=int(union * quality) / union,
                target_area=float(truth.random()) / 4,
            )
        )
    write_json(folder / 'predictions.json', dict(empty_union=0.0, tie='>', predictions=records))
    return folder


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> tuple[ExpressionScores, ExpressionScores]:
    folder = tmp_path_factory.mktemp('runs')
    return tuple(
        ExpressionScores.read(write_run(folder / name, gain, seed))
        for name, gain, seed in (('plain', 0.0, 1), ('nemo', 0.04, 2))
    )


def test_rows_are_the_summaries_of_the_slices(runs):
    first, second = runs
    shuffled = second.take(np.random.default_rng(0).permutation(len(second)))
    comparison = compare_runs(first, shuffled, by=['length', 'distractors'], resamples=300)
    assert [row.measure for row in comparison.rows[:7]] == MEASURES
    whole = paired_bootstrap(first, second, resamples=300)
    assert [row.low for row in comparison.rows[:7]] == whole.low[0].tolist()
    assert sum(row.expressions for row in comparison.rows if row.by == 'length') == 7 * 200
    for row in comparison.rows:
        where = None
        if row.by != 'all':
            where = slice_by(first, row.by).where(row.slice)
            assert row.expressions == where.sum()
            assert row.images == len({n for n, held in zip(first.images, where) if held})
        assert row.first == pytest.approx(first.summary(where=where)[row.measure])
        assert row.second == pytest.approx(second.summary(where=where)[row.measure])
        assert row.difference == pytest.approx(row.second - row.first)
        assert row.low <= row.difference <= row.high


def test_table_and_csv_say_the_same(runs, tmp_path: Path):
    comparison = compare_runs(*runs, names=('plain', 'NeMo'), resamples=200)
    comparison.write_csv(tmp_path / 'new' / 'out.csv')
    with (tmp_path / 'new' / 'out.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(comparison.rows) and [p.name for p in tmp_path.iterdir()] == ['new']
    text = comparison.table(['mIoU'])
    assert '200 expressions of 50 images' in text and 'NeMo - plain' in text
    shown = 0
    for line, row in zip(lines, comparison.rows):
        assert float(line['difference']) == row.difference and line['slice'] == row.slice
        if row.measure == 'mIoU':
            cell = f' {row.difference:+.2f} '
            if line['low']:
                cell += f'[{float(line["low"]):+.2f}, {float(line["high"]):+.2f}]'
            shown += any(
                cell in printed
                and f' {row.slice} ' in printed
                and f' {row.expressions} ' in printed
                for printed in text.splitlines()
            )
    assert shown == sum(row.measure == 'mIoU' for row in comparison.rows) > 15
    with pytest.raises(ValueError, match="'cIoU' was not compared, but .*'oIoU', 'mIoU'"):
        comparison.table(['cIoU'])


def test_one_image_has_no_interval(runs, tmp_path: Path):
    rows = np.arange(4)
    comparison = compare_runs(*(run.take(rows) for run in runs), by=(), resamples=10)
    assert len(comparison.rows) == 7 and np.isnan(comparison.rows[0].low)
    assert 'nan' not in comparison.table()
    comparison.write_csv(tmp_path / 'out.csv')
    assert (tmp_path / 'out.csv').read_text().splitlines()[1].endswith(',,')
    plot_comparison(comparison, tmp_path / 'out.png')


@pytest.mark.parametrize(
    'change, word',
    [
        (lambda run: run.take(np.arange(150)), '50 expressions are in one run only .sent_id 150'),
        (
            lambda run: run.take(np.r_[0, 0:200]),
            'sent_id 0 appears twice in the second run.* Evaluate each data set by itself',
        ),
        (lambda run: setattr(run, 'images', ['x.jpg', *run.images[1:]]), 'sent_id 0 belongs to'),
        (
            lambda run: setattr(run, 'expressions', ['cat'] * 150 + run.expressions[150:]),
            "150 of 200 expressions .* sent_id 0, .* and 'cat'",
        ),
        (lambda run: setattr(run, 'target_area', run.target_area + 0.02), '2.0% of the image'),
        (lambda run: setattr(run, 'empty_union', 1.0), 'different rules'),
    ],
)
def test_runs_that_do_not_fit(runs, change, word: str):
    first, second = runs[0], runs[1].take(np.arange(200))
    with pytest.raises(ValueError, match=word):
        compare_runs(first, change(second) or second, resamples=10)


def test_texts_may_be_spelled_differently(runs):
    first, second = runs[0], runs[1].take(np.arange(200))
    second.expressions = [f'{text.upper()}!' for text in second.expressions]
    second.expressions[0] = 'another text'
    there, here = (compare_runs(first, run, resamples=10).rows for run in (runs[1], second))
    assert str(there) == str(here)


def test_picture_shows_the_rows(runs, tmp_path: Path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure,
        'savefig',
        lambda self, *args, **options: (figures.append(self), save(self, *args, **options)),
    )
    comparison = compare_runs(*runs, names=('plain', 'NeMo'), resamples=200)
    plot_comparison(comparison, tmp_path / 'new' / 'out.svg')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['out.svg']
    axes = iter(figures[0].axes)
    for measure in ('oIoU', 'mIoU'):
        rows = comparison.of(measure)
        for by in dict.fromkeys(row.by for row in rows[1:]):
            axis, panel = next(axes), [row for row in rows if row.by == by]
            assert axis.get_title() == f'by {by}'
            points = [line for line in axis.lines if line.get_marker() == 'o']
            assert points[0].get_ydata().tolist() == [row.difference for row in panel]
            levels = [line.get_ydata()[0] for line in axis.lines if line not in points]
            assert levels == [rows[0].difference, 0]
            segments = axis.collections[0].get_segments()
            drawn = [ends[:, 1].tolist() for ends in segments if ends.size]
            assert drawn == [[row.low, row.high] for row in panel if row.images > 1]
            low, high = axis.get_ylim()
            large = [row for row in panel if row.expressions >= 2]
            assert all(low < row.low and row.high < high for row in large)
            shown = [label.get_text() for label in axis.get_xticklabels()]
            assert shown == [
                '\n'.join([*row.slice.split(','), f'n={row.expressions}']) for row in panel
            ]
    assert not list(axes)
    texts = [text.get_text() for text in figures[0].texts]
    assert any(text.startswith('NeMo minus plain, with 95 % intervals') for text in texts)
    assert any('all 200 expressions' in text for text in texts)


def test_csv_opens_in_pandas(runs, tmp_path: Path):
    pandas = pytest.importorskip('pandas')
    comparison = compare_runs(*runs, resamples=50)
    comparison.write_csv(tmp_path / 'out.csv')
    frame = pandas.read_csv(tmp_path / 'out.csv')
    assert frame.shape == (len(comparison.rows), 10)
    assert frame['slice'].tolist() == [row.slice for row in comparison.rows]
    numbers = frame[['first', 'second', 'difference', 'low', 'high']].to_numpy(float)
    rows = [[r.first, r.second, r.difference, r.low, r.high] for r in comparison.rows]
    np.testing.assert_allclose(numbers, rows)  # nan where nothing is known


def test_tool_writes_table_csv_and_picture(tmp_path: Path):
    plain, nemo = (write_run(tmp_path / n, g, s) for n, g, s in (('a', 0, 1), ('b', 0.04, 2)))
    command = [sys.executable, TOOL, plain, nemo, '--out', tmp_path / 'out', '--resamples', '200']
    done = subprocess.run(
        [*command, '--by', 'area', 'position*length', '--measures', 'mIoU', 'Pr@0.7', '--names',
         'plain', 'NeMo'],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '16-32%' in done.stdout and 'with,1-5' in done.stdout and '| oIoU' not in done.stdout
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'comparison.csv',
        'comparison.png',
    ]
    picture = np.asarray(Image.open(tmp_path / 'out' / 'comparison.png').convert('RGB'))
    blue = np.abs(picture.astype(int) - (31, 95, 168)).max(-1) < 8
    assert picture.shape[0] > 600 and blue.sum() > 500  # points and intervals are drawn
    content = json.loads((plain / 'predictions.json').read_text())
    write_json(plain / 'predictions.json', dict(content, predictions=content['predictions'][:9]))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and 'are they of the same split?' in done.stderr
