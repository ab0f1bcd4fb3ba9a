"""GeneralizedReferringIoU against ReLA's published evaluator and a loop over pixels."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

import nemo_mmseg  # noqa: F401  (registers)

DATA = Path(__file__).parents[1] / 'data' / 'rela_metrics'
PUBLISHED = json.loads((DATA / 'published.json').read_text())


def unpack(bits, shape):
    return np.unpackbits(bits, axis=1)[:, : np.prod(shape)].reshape(-1, *shape)


def published_samples(rows, sources=None, scores=True):
    """The samples of the published evaluator, as a segmentor with a no-target output gives them."""
    with np.load(DATA / 'samples.npz') as file:
        shape = tuple(file['shape'])
        prediction, gt = unpack(file['prediction'], shape), unpack(file['truth'], shape)
        margin = file['nt_logits'][:, 1] - file['nt_logits'][:, 0]
        empty = file['empty']
    samples = []
    for row in rows:
        meta = dict(img_path=f'{row}.jpg', expressions=['it'], num_targets=[int(not empty[row])])
        if sources:
            meta['dataset_name'] = sources[row]
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(gt[row][None].copy()))
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction[row][None].copy()))
        if scores:
            sample.set_data({'no_target': torch.tensor([margin[row]])})
        samples.append(sample)
    return samples, empty


def evaluate(samples, **options):
    evaluator = Evaluator([METRICS.build(dict(type='GeneralizedReferringIoU', **options))])
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def ours(published):
    """The published keys as ours are called."""
    return {key.replace('_acc', '-acc'): value for key, value in published.items()}


def check(metrics, published, prefix=''):
    for key, value in ours(published).items():
        assert metrics[prefix + key] == pytest.approx(value, rel=1e-12), key


def test_equals_the_published_evaluator():
    samples, _ = published_samples(range(10))
    metrics = evaluate(samples)
    check(metrics, PUBLISHED['all_grefcoco']['grefcoco'])
    assert metrics['expressions'] == 10 and len(metrics) == 9


def test_equals_the_published_evaluator_without_no_target_expressions():
    _, empty = published_samples(range(1))
    samples, _ = published_samples(np.flatnonzero(~empty))
    metrics = evaluate(samples)
    check(metrics, PUBLISHED['targets_only_refcoco']['refcoco'])
    assert metrics['N-acc'] == metrics['T-acc'] == 0


def test_equals_the_published_evaluator_on_two_data_sets():
    sources = ['refcoco' if row in (0, 1, 5) else 'grefcoco' for row in range(10)]
    metrics = evaluate(published_samples(range(10), sources)[0])
    published = PUBLISHED['mixed_sources_first_1_5_refcoco']
    check(metrics, published['full'])
    check(metrics, published['refcoco'], 'refcoco/')
    check(metrics, published['grefcoco'], 'grefcoco/')


NUMS = (3, 1, 4)


def make_samples():
    """Three images, 8 expressions: right, wrong, missed, under 50 pixels, and no-target."""
    rng = np.random.default_rng(7)
    samples = []
    for image_id, num in enumerate(NUMS):
        height, width = 40 + image_id, 50
        gt = np.zeros((num, height, width), np.uint8)
        prediction = np.zeros_like(gt)
        for row in range(num):
            kind = (image_id + row) % 4
            top, left = rng.integers(0, 15, 2)
            if kind != 1:  # 1: no target
                gt[row, top : top + 20, left : left + 12 + row] = 1
            if kind == 2:
                prediction[row, :7, :7] = 1  # 49 pixels: predicted no-target
            elif not (kind == 1 and row == 1):
                prediction[row, top + 1 : top + 21 - 4 * kind, left : left + 12] = 1
        sample = SegDataSample(
            metainfo=dict(
                img_path=f'{image_id}.jpg',
                image_id=image_id,
                expressions=['it'] * num,
                num_targets=[int(mask.any()) for mask in gt],
            )
        )
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(gt))
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction))
        samples.append(sample)
    return samples


def by_loop(samples, min_pixels=50):
    """The table of the docstring, expression by expression."""
    ious, inter, union, hits, kept, found = [], 0, 0, 0, [], []
    for sample in samples:
        for gt, said in zip(sample.gt_sem_seg.data, sample.pred_sem_seg.data):
            gt, said = gt.numpy() > 0, said.numpy() > 0
            predicted_none = said.sum() < min_pixels
            if not gt.any():
                found.append(predicted_none)
                ious.append(float(predicted_none))
                union += 0 if predicted_none else said.sum()
                continue
            kept.append(not predicted_none)
            common = 0 if predicted_none else (gt & said).sum()
            inter, union = inter + common, union + (gt | said).sum()
            ious.append(common / (gt | said).sum())
            hits += ious[-1] >= 0.7
    return {
        'gIoU': 100 * np.mean(ious),
        'cIoU': 100 * inter / union,
        'N-acc': np.mean(found),
        'T-acc': np.mean(kept),
        'Pr@0.7': 100 * hits / len(kept),
        'expressions': 8,
        'images': 3,
    }


def test_no_target_by_area_equals_a_loop():
    samples = make_samples()
    expected = by_loop(samples)
    metrics = evaluate(samples, thresholds=[0.7])
    assert metrics == pytest.approx(expected)
    # Every row of the table occurs.
    assert 0 < expected['N-acc'] < 1 and 0 < expected['T-acc'] < 1 and expected['Pr@0.7'] > 0
    assert evaluate(samples, thresholds=[0.7], min_pixels=1) == pytest.approx(by_loop(samples, 1))
    assert by_loop(samples, 1)['T-acc'] == 1


@pytest.mark.parametrize('pixels, predicted', [(0, True), (49, True), (50, False), (51, False)])
@pytest.mark.parametrize('no_target', [True, False])
def test_fifty_pixels_are_a_target(pixels, predicted, no_target):
    sample = make_samples()[1]
    sample.pred_sem_seg.data.zero_().flatten()[:pixels] = 1
    sample.gt_sem_seg.data.copy_(0 if no_target else sample.pred_sem_seg.data)
    sample.set_metainfo(dict(num_targets=[0 if no_target else 1]))
    metrics = evaluate([sample])
    assert metrics['gIoU'] == (100 if predicted == no_target else 0)
    assert metrics['N-acc'] == (no_target and predicted)
    if pixels and not (no_target and predicted):
        assert metrics['cIoU'] == (0 if no_target or predicted else 100)


def test_without_expressions_nothing_is_measured():
    metric = METRICS.build(dict(type='GeneralizedReferringIoU'))
    metrics = metric.compute_metrics([])
    assert not any(metrics.pop(key) for key in ('expressions', 'images', 'N-acc', 'T-acc'))
    assert len(metrics) == 5 and all(map(math.isnan, metrics.values()))


def test_the_ground_truth_decides_where_num_targets_is_missing():
    samples = make_samples()
    for sample in samples:
        del sample.num_targets
    assert evaluate(samples, thresholds=[0.7]) == pytest.approx(by_loop(samples))


def test_a_target_that_vanished_is_still_one():
    sample = make_samples()[1]
    sample.gt_sem_seg.data.zero_()
    sample.pred_sem_seg.data.zero_()
    sample.set_metainfo(dict(num_targets=[1]))
    metrics = evaluate([sample])
    assert metrics['gIoU'] == 0 and math.isnan(metrics['cIoU'])
    sample.set_metainfo(dict(num_targets=[0]))
    metrics = evaluate([sample])
    assert metrics['gIoU'] == 100 and metrics['N-acc'] == 1 and math.isnan(metrics['Pr@0.7'])


def test_a_score_goes_before_the_area_unless_told():
    samples, empty = published_samples(range(10))
    without = published_samples(range(10), scores=False)[0]
    assert evaluate(samples, no_target='area') == evaluate(without)
    assert evaluate(samples, no_target='score') == evaluate(samples)
    always = evaluate(samples, score_threshold=-9)
    assert always['N-acc'] == 1 and always['T-acc'] == 0 and always['gIoU'] == 100 * empty.mean()
    with pytest.raises(ValueError, match='no no-target output'):
        evaluate(without, no_target='score')


def test_pixels_of_padding_do_not_count():
    samples = make_samples()
    expected = evaluate(samples)
    for sample in samples:
        gt, said = sample.gt_sem_seg.data, sample.pred_sem_seg.data
        gt = torch.nn.functional.pad(gt, (0, 6), value=255)
        said = torch.nn.functional.pad(said, (0, 6), value=1)
        del sample.gt_sem_seg, sample.pred_sem_seg
        sample.gt_sem_seg, sample.pred_sem_seg = PixelData(data=gt), PixelData(data=said)
    assert evaluate(samples) == expected


@pytest.mark.parametrize(
    'options, word',
    [
        (dict(no_target='mask'), 'no_target'),
        (dict(thresholds=[70]), 'thresholds'),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        METRICS.build(dict(type='GeneralizedReferringIoU', **options))


def test_values_that_do_not_fit_name_the_image():
    sample = make_samples()[2]
    sample.set_metainfo(dict(num_targets=[1, 1]))
    with pytest.raises(ValueError, match=r"2\.jpg.*'union': 4.*'no_target': 2"):
        evaluate([sample])
