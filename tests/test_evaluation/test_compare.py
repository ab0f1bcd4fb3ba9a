"""Two runs side by side: rows against the summaries of slices, files, tool."""

import csv
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nemo_mmseg.evaluation.bootstrap import paired_bootstrap
from nemo_mmseg.evaluation.compare import compare_runs
from nemo_mmseg.evaluation.difficulty import slice_by
from nemo_mmseg.evaluation.predictions import write_json
from nemo_mmseg.evaluation.scores import ExpressionScores

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'compare_runs.py'
MEASURES = ['oIoU', 'mIoU', 'Pr@0.5', 'Pr@0.6', 'Pr@0.7', 'Pr@0.8', 'Pr@0.9']


def write_run(folder: Path, gain: float, seed: int, num: int = 200) -> Path:
    """Results as `DumpReferringResults` writes them; all runs have the same ground truth."""
    gt, noise = np.random.default_rng(0), np.random.default_rng(seed)
    records = []
    for sent_id in range(num):
        union = int(gt.integers(1000, 9000))
        quality = gt.random() * 0.8 + gain + 0.05 * noise.random()
        words = gt.choice(['left', 'red', 'man', 'top'], gt.integers(1, 14))
        records.append(
            dict(
                sent_id=sent_id,
                image=f'{folder}/{sent_id // 4}.jpg',
                expression=' '.join(words),
                num_distractors=int(gt.integers(5)),
                intersection=int(union * quality),
                union=union,
                target_area=float(gt.random()) / 4,
            )
        )
    content = dict(dataset='refcoco', empty_union=0.0, tie='>', no_target_rule=None)
    write_json(folder / 'predictions.json', dict(content, predictions=records))
    return folder


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp('runs')
    return [write_run(folder / 'a', 0.0, 1), write_run(folder / 'b', 0.04, 2)]


@pytest.fixture(scope='module')
def runs(folders) -> list[ExpressionScores]:
    return [ExpressionScores.read(folder) for folder in folders]


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
            where = slice_by(first, row.by)[row.slice]
            assert row.expressions == where.sum()
            assert row.images == len({n for n, held in zip(first.images, where) if held})
        assert row.first == pytest.approx(first.summary(where=where)[row.measure])
        assert row.second == pytest.approx(second.summary(where=where)[row.measure])
        assert row.difference == pytest.approx(row.second - row.first)
        assert row.low <= row.difference <= row.high


def test_table_and_csv_say_the_same(runs, tmp_path: Path):
    comparison = compare_runs(*runs, names=('base', 'NeMo'), resamples=200)
    comparison.write_csv(tmp_path / 'new' / 'out.csv')
    with (tmp_path / 'new' / 'out.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(comparison.rows)
    text = comparison.table(['mIoU'])
    assert '200 expressions of 50 images' in text and 'NeMo - base' in text
    for line, row in zip(lines, comparison.rows):
        assert float(line['difference']) == row.difference and line['slice'] == row.slice
        assert line['low'] == ('' if np.isnan(row.low) else str(row.low))
        if row.measure == 'mIoU':
            assert f' {row.difference:+.2f} ' in text and f' {row.slice} ' in text
    with pytest.raises(ValueError, match="'cIoU' was not compared, but .*'oIoU', 'mIoU'"):
        comparison.table(['cIoU'])


def test_one_image_has_no_interval(runs, tmp_path: Path):
    comparison = compare_runs(*(run.take(np.arange(4)) for run in runs), by=(), resamples=10)
    assert len(comparison.rows) == 7 and np.isnan(comparison.rows[0].low)
    assert 'nan' not in comparison.table()


@pytest.mark.parametrize(
    'change, word',
    [
        (lambda run: run.take(np.arange(150)), '50 expressions are in one run only .sent_id 150'),
        (
            lambda run: run.take(np.r_[0, 0:200]),
            'sent_id 0 appears twice in the second run.* evaluate each data set by itself',
        ),
        (lambda run: replace(run, images=['x.jpg', *run.images[1:]]), 'sent_id 0 belongs to'),
        (
            lambda run: replace(run, expressions=['cat'] * 150 + [*run.expressions[150:]]),
            "150 of 200 expressions .* sent_id 0, .* and 'cat'",
        ),
        (lambda run: replace(run, target_area=run.target_area + 0.02), '2.0% of the image'),
        (lambda run: replace(run, empty_union=1.0), 'different rules'),
    ],
)
def test_runs_that_do_not_fit(runs, change, word: str):
    with pytest.raises(ValueError, match=word):
        compare_runs(runs[0], change(runs[1]), resamples=10)


def test_expressions_may_be_spelled_differently(runs):
    spelled = [f'{expression.upper()}!' for expression in runs[1].expressions]
    second = replace(runs[1], expressions=['another one', *spelled[1:]])
    there, here = (compare_runs(runs[0], run, resamples=10).rows for run in (runs[1], second))
    assert str(there) == str(here)


def test_tool_writes_table_csv_and_picture(folders, tmp_path: Path, monkeypatch, capsys):
    options = ['--resamples', '200', '--by', 'area', 'position*length', '--measures', 'mIoU']
    monkeypatch.setattr('sys.argv', ['', *map(str, folders), '--out', str(tmp_path), *options])
    runpy.run_path(str(TOOL), run_name='__main__')
    said = capsys.readouterr().out
    assert '16-32%' in said and 'with,1-5' in said
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['comparison.csv', 'comparison.png']
    picture = np.asarray(Image.open(tmp_path / 'comparison.png').convert('RGB'))
    blue = np.abs(picture.astype(int) - (31, 95, 168)).max(-1) < 8
    assert picture.shape[0] > 300 and blue.sum() > 500  # points and intervals are drawn
