"""Written results and comparisons of runs whose expressions may describe nothing."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

import nemo_mmseg  # noqa: F401  (registers)
from nemo_mmseg.evaluation.bootstrap import image_weights
from nemo_mmseg.evaluation.compare import compare_runs
from nemo_mmseg.evaluation.dump_results import write_results_to
from nemo_mmseg.evaluation.plot_comparison import plot_comparison
from nemo_mmseg.evaluation.scores import ExpressionScores

SHAPE = 20, 30
IMAGES, PER_IMAGE = 6, 4


def make_samples(seed):
    """Of each image expressions of a target and of nothing; the seed draws what is predicted."""
    rng = np.random.default_rng(seed)
    samples = []
    for image_id in range(IMAGES):
        truth = np.zeros((PER_IMAGE, *SHAPE), np.uint8)
        prediction = np.zeros_like(truth)
        for row in range(PER_IMAGE):
            if (image_id + row) % 3:
                truth[row, 4 : 12 + row, 5:25] = 1
            pixels = rng.choice([0, 49, 50, 200, 300])
            prediction[row].reshape(-1)[30 * 4 : 30 * 4 + pixels] = 1
        if seed % 2 and image_id == 1:
            prediction[2] = truth[2]
        meta = dict(
            img_path=f'{image_id}.jpg',
            image_id=image_id,
            sent_ids=[10 * image_id + row for row in range(PER_IMAGE)],
            ref_ids=[image_id] * PER_IMAGE,
            expressions=['word ' * (1 + 4 * row) for row in range(PER_IMAGE)],
            num_distractors=[row if mask.any() else -1 for row, mask in enumerate(truth)],
            num_targets=[2 * int(mask.any()) for mask in truth],
            ori_shape=SHAPE,
        )
        # a target that no pixel is left of: called nothing, it counts 0 all the same
        if image_id == 5:
            truth[0], prediction[0], meta['num_targets'][0] = 0, 0, 1
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth))
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction))
        samples.append(sample)
    return samples


def evaluate(out_dir, seed, **options):
    """The logged measures; the results are written as `tools/test.py --out` does."""
    cfg = Config(dict(test_evaluator=dict(type='GeneralizedReferringIoU', **options)))
    write_results_to(cfg, str(out_dir))
    evaluator = Evaluator([METRICS.build(metric) for metric in cfg.test_evaluator])
    evaluator.process(make_samples(seed))
    return evaluator.evaluate(IMAGES)


def records_of(out_dir):
    return json.loads((out_dir / 'predictions.json').read_text())


@pytest.mark.parametrize('options', [{}, dict(min_pixels=250), dict(no_target='area')])
def test_what_is_written_is_what_the_metric_counts(tmp_path, options):
    logged = evaluate(tmp_path, 1, **options)
    content = records_of(tmp_path)
    assert content['no_target'] == {
        'no_target': 'auto',
        'min_pixels': 50,
        'score_threshold': 0.0,
        **options,
    }
    records = content['predictions']
    assert 100 * np.mean([record['iou'] for record in records]) == pytest.approx(logged['gIoU'])
    sums = [sum(record[key] for record in records) for key in ('intersection', 'union')]
    assert 100 * sums[0] / sums[1] == pytest.approx(logged['cIoU'])
    limit = options.get('min_pixels', 50)
    for record in records:
        assert record['said_empty'] == (record['area'] < limit)
        if record['is_empty']:
            assert record['iou'] == record['said_empty'] and record['intersection'] == 0
            assert record['union'] == (0 if record['said_empty'] else record['area'])
        elif record['said_empty']:
            assert record['iou'] == record['intersection'] == 0
    assert {49, 50} < {record['area'] for record in records}
    vanished = next(record for record in records if record['sent_id'] == 50)
    assert vanished['union'] == vanished['iou'] == 0 and not vanished['is_empty']
    scores = ExpressionScores.read(tmp_path)
    assert scores.summary() == pytest.approx({key: logged[key] for key in scores.summary()})
    assert scores.iou.tolist() == [record['iou'] for record in records]


def test_scores_of_a_head_are_written(tmp_path):
    """A network that says "nothing" itself is taken at its word, whatever it draws."""
    metrics = [dict(type='GeneralizedReferringIoU'), dict(type='DumpReferringResults')]
    metrics[1].update(out_dir=str(tmp_path), no_target={})
    evaluator = Evaluator([METRICS.build(metric) for metric in metrics])
    samples = make_samples(0)
    for sample in samples:
        sample.set_data({'no_target': torch.tensor([1.0, -1.0, 1.0, -1.0])})
    evaluator.process(samples)
    logged = evaluator.evaluate(IMAGES)
    scores = ExpressionScores.read(tmp_path)
    assert scores.said_empty.tolist() == [True, False] * (2 * IMAGES)
    assert scores.summary()['gIoU'] == pytest.approx(logged['gIoU'])


def by_hand(records, weights):
    """The published measures in per cent, each image taken so many times."""
    times = [weights[record['image_id']] for record in records]

    def share(values, of):
        below = sum(t * b for t, b in zip(times, of))
        return 100 * sum(t * v for t, v in zip(times, values)) / below if below else math.nan

    ious = [record['iou'] for record in records]
    has = [not record['is_empty'] for record in records]
    said = [record['said_empty'] for record in records]
    return {
        'cIoU': share([r['intersection'] for r in records], [r['union'] for r in records]),
        'gIoU': share(ious, [1] * len(ious)),
        'N-acc': share([s and not h for s, h in zip(said, has)], [not h for h in has]),
        'T-acc': share([h and not s for s, h in zip(said, has)], has),
        'Pr@0.7': share([h and iou >= 0.7 for h, iou in zip(has, ious)], has),
    }


def test_comparison_has_the_published_measures_and_their_intervals(tmp_path):
    logged = [evaluate(tmp_path / name, seed) for seed, name in enumerate('ab')]
    runs = [ExpressionScores.read(tmp_path / name) for name in 'ab']
    comparison = compare_runs(*runs, resamples=200, seed=3)
    assert comparison.measures == ['cIoU', 'gIoU', 'N-acc', 'T-acc', 'Pr@0.7', 'Pr@0.8', 'Pr@0.9']
    percent = {'N-acc': 100, 'T-acc': 100}
    whole = {row.measure: row for row in comparison.rows if row.by == 'all'}
    for name, row in whole.items():
        values = [percent.get(name, 1) * one[name] for one in logged]
        assert [row.first, row.second] == pytest.approx(values), name
    drawn = []
    records = [records_of(tmp_path / name)['predictions'] for name in 'ab']
    for block in image_weights(IMAGES, 200, 3):
        for weights in block:
            one, two = (by_hand(run, weights) for run in records)
            drawn.append([two[name] - one[name] for name in one])
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    for column, name in enumerate(by_hand(records[0], np.ones(IMAGES))):
        assert whole[name].low == pytest.approx(low[column]), name
        assert whole[name].high == pytest.approx(high[column]), name
    # Slices: an expression of nothing has no area and no number of distractors.
    nothing = [row for row in comparison.of('N-acc') if row.slice in ('unknown', 'no target')]
    assert len(nothing) == 2 and nothing[0].first == pytest.approx(whole['N-acc'].first)
    others = [row for row in comparison.of('N-acc') if row.by == 'distractors'][:-1]
    assert others and all(math.isnan(row.first) for row in others)
    text = comparison.table()
    assert 'gIoU' in text and 'mIoU' not in text
    assert 'nan' not in comparison.table(['N-acc']), 'of a slice without expressions of nothing'
    for measures in (None, ['gIoU', 'N-acc']):
        plot_comparison(comparison, tmp_path / 'plot.png', measures)
    comparison.write_csv(tmp_path / 'rows.csv')
    rows = list(csv.DictReader((tmp_path / 'rows.csv').open()))
    assert {row['measure'] for row in rows} == set(comparison.measures)


def test_a_run_that_was_counted_otherwise_is_refused(tmp_path):
    evaluate(tmp_path / 'a', 0)
    evaluator = Evaluator(
        [METRICS.build(dict(type='DumpReferringResults', out_dir=tmp_path / 'b'))]
    )
    evaluator.process(make_samples(0))
    evaluator.evaluate(IMAGES)
    runs = [ExpressionScores.read(tmp_path / name) for name in 'ab']
    with pytest.raises(ValueError, match='evaluate both by the same metric'):
        compare_runs(*runs, resamples=2)


def test_results_are_written_by_the_rule_of_the_metric():
    cfg = Config(dict(test_evaluator=[dict(type='GeneralizedReferringIoU', ignore_index=None)]))
    cfg.test_evaluator[0].update(min_pixels=9, no_target='area')
    write_results_to(cfg, 'out')
    assert cfg.test_evaluator[1] == dict(
        type='DumpReferringResults',
        out_dir='out',
        ignore_index=None,
        no_target=dict(no_target='area', min_pixels=9),
    )
