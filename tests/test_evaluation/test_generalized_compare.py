"""Written results and comparisons of runs whose expressions may have no target."""

import json
import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

import nemo_mmseg  # noqa: F401  (registers)
from nemo_mmseg.evaluation.bootstrap import image_weights
from nemo_mmseg.evaluation.compare import compare_runs
from nemo_mmseg.evaluation.scores import ExpressionScores

SHAPE = 20, 30
IMAGES, PER_IMAGE = 6, 4


def make_samples(seed):
    """Of each image expressions with and without a target; the seed draws the predictions."""
    rng = np.random.default_rng(seed)
    samples = []
    for image_id in range(IMAGES):
        gt = np.zeros((PER_IMAGE, *SHAPE), np.uint8)
        prediction = np.zeros_like(gt)
        for row in range(PER_IMAGE):
            if (image_id + row) % 3:
                gt[row, 4 : 12 + row, 5:25] = 1
            pixels = rng.choice([0, 49, 50, 200, 300])
            prediction[row].reshape(-1)[30 * 4 : 30 * 4 + pixels] = 1
        if seed % 2 and image_id == 1:
            prediction[2] = gt[2]
        meta = dict(
            img_path=f'{image_id}.jpg',
            image_id=image_id,
            sent_ids=[10 * image_id + row for row in range(PER_IMAGE)],
            ref_ids=[image_id] * PER_IMAGE,
            expressions=['word ' * (1 + 4 * row) for row in range(PER_IMAGE)],
            num_distractors=[row if mask.any() else -1 for row, mask in enumerate(gt)],
            num_targets=[2 * int(mask.any()) for mask in gt],
            ori_shape=SHAPE,
        )
        # a target of which no pixel is left: predicted no-target, it counts 0 all the same
        if image_id == 5:
            gt[0], prediction[0], meta['num_targets'][0] = 0, 0, 1
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(gt))
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction))
        samples.append(sample)
    return samples


def evaluate(out_dir, samples, **rule):
    """The logged measures; the results are written by the same rule."""
    metric = dict(type='GeneralizedReferringIoU', **rule)
    writer = dict(type='DumpReferringResults', out_dir=str(out_dir), no_target_rule=rule)
    evaluator = Evaluator([METRICS.build(metric), METRICS.build(writer)])
    evaluator.process(samples)
    return evaluator.evaluate(IMAGES)


def records_of(out_dir):
    return json.loads((out_dir / 'predictions.json').read_text())['predictions']


@pytest.mark.parametrize('rule', [{}, dict(min_pixels=250), dict(no_target='area')])
def test_what_is_written_is_what_the_metric_counts(tmp_path, rule):
    logged = evaluate(tmp_path, make_samples(1), **rule)
    records = records_of(tmp_path)
    assert 100 * np.mean([record['iou'] for record in records]) == pytest.approx(logged['gIoU'])
    sums = [sum(record[key] for record in records) for key in ('intersection', 'union')]
    assert 100 * sums[0] / sums[1] == pytest.approx(logged['cIoU'])
    limit = rule.get('min_pixels', 50)
    for record in records:
        predicted = record['predicted_no_target']
        assert predicted == (record['area'] < limit)
        if record['no_target']:
            assert record['iou'] == predicted and record['intersection'] == 0
            assert record['union'] == (0 if predicted else record['area'])
        elif predicted:
            assert record['iou'] == record['intersection'] == 0
    assert {49, 50} < {record['area'] for record in records}
    vanished = next(record for record in records if record['sent_id'] == 50)
    assert vanished['union'] == vanished['iou'] == 0 and not vanished['no_target']
    scores = ExpressionScores.read(tmp_path)
    assert scores.summary() == pytest.approx({key: logged[key] for key in scores.summary()})
    assert scores.iou.tolist() == [record['iou'] for record in records]


def test_scores_of_a_head_go_before_the_masks(tmp_path):
    samples = make_samples(0)
    for sample in samples:
        sample.set_data({'no_target': torch.tensor([1.0, -1.0, 1.0, -1.0])})
    logged = evaluate(tmp_path, samples)
    scores = ExpressionScores.read(tmp_path)
    assert scores.predicted_no_target.tolist() == [True, False] * (2 * IMAGES)
    assert scores.summary()['gIoU'] == pytest.approx(logged['gIoU'])


def by_hand(records, weights):
    """The published measures in per cent, each image taken so many times."""
    times = [weights[record['image_id']] for record in records]

    def share(values, of):
        below = sum(t * b for t, b in zip(times, of))
        return 100 * sum(t * v for t, v in zip(times, values)) / below if below else math.nan

    ious = [record['iou'] for record in records]
    has = [not record['no_target'] for record in records]
    said = [record['predicted_no_target'] for record in records]
    return {
        'cIoU': share([r['intersection'] for r in records], [r['union'] for r in records]),
        'gIoU': share(ious, [1] * len(ious)),
        'N-acc': share([s and not h for s, h in zip(said, has)], [not h for h in has]),
        'T-acc': share([h and not s for s, h in zip(said, has)], has),
        'Pr@0.7': share([h and iou >= 0.7 for h, iou in zip(has, ious)], has),
    }


def test_comparison_has_the_published_measures_and_their_intervals(tmp_path):
    logged = [evaluate(tmp_path / name, make_samples(seed)) for seed, name in enumerate('ab')]
    runs = [ExpressionScores.read(tmp_path / name) for name in 'ab']
    comparison = compare_runs(*runs, resamples=200, seed=3)
    assert comparison.measures == ['cIoU', 'gIoU', 'N-acc', 'T-acc', 'Pr@0.7', 'Pr@0.8', 'Pr@0.9']
    percent = {'N-acc': 100, 'T-acc': 100}
    whole = {row.measure: row for row in comparison.rows if row.by == 'all'}
    for name, row in whole.items():
        values = [percent.get(name, 1) * one[name] for one in logged]
        assert [row.first, row.second] == pytest.approx(values), name
    drawn = []
    records = [records_of(tmp_path / name) for name in 'ab']
    for weights in np.concatenate(list(image_weights(IMAGES, 200, 3))):
        one, two = (by_hand(run, weights) for run in records)
        drawn.append([two[name] - one[name] for name in one])
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    for column, name in enumerate(by_hand(records[0], np.ones(IMAGES))):
        assert whole[name].low == pytest.approx(low[column]), name
        assert whole[name].high == pytest.approx(high[column]), name
    # Slices: a no-target expression has no area and no number of distractors.
    none = [row for row in comparison.of('N-acc') if row.slice in ('unknown', 'no target')]
    assert len(none) == 2 and none[0].first == pytest.approx(whole['N-acc'].first)
    others = [row for row in comparison.of('N-acc') if row.by == 'distractors'][:-1]
    assert others and all(math.isnan(row.first) for row in others)
    assert 'nan' not in comparison.table(['N-acc'])


def test_runs_that_are_counted_differently_are_refused(tmp_path):
    evaluate(tmp_path / 'a', make_samples(0))
    writer = METRICS.build(dict(type='DumpReferringResults', out_dir=str(tmp_path / 'b')))
    evaluator = Evaluator([writer])
    evaluator.process(make_samples(0))
    evaluator.evaluate(IMAGES)
    runs = [ExpressionScores.read(tmp_path / name) for name in 'ab']
    with pytest.raises(ValueError, match='evaluate both by the same metric'):
        compare_runs(*runs, resamples=2)
