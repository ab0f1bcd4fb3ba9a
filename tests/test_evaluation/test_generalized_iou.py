"""GeneralizedReferringIoU against ReLA's published evaluator and a loop over pixels."""

import json
import math
import os
import pickle
import subprocess
import sys
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
        prediction, truth = unpack(file['prediction'], shape), unpack(file['truth'], shape)
        margin = file['nt_logits'][:, 1] - file['nt_logits'][:, 0]
        empty = file['empty']
    samples = []
    for row in rows:
        meta = dict(img_path=f'{row}.jpg', expressions=['it'], num_targets=[int(not empty[row])])
        if sources:
            meta['dataset_name'] = sources[row]
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth[row][None].copy()))
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
    assert metrics['expressions'] == 10 and len(metrics) == 8


def test_equals_the_published_evaluator_without_expressions_of_nothing():
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
    """Three images, 8 expressions: right, wrong, missed, faint (under 50 pixels) and of nothing."""
    rng = np.random.default_rng(7)
    samples = []
    for image_id, num in enumerate(NUMS):
        height, width = 40 + image_id, 50
        truth = np.zeros((num, height, width), np.uint8)
        prediction = np.zeros_like(truth)
        for row in range(num):
            kind = (image_id + row) % 4
            top, left = rng.integers(0, 15, 2)
            if kind != 1:  # 1: nothing is described
                truth[row, top : top + 20, left : left + 12 + row] = 1
            if kind == 2:
                prediction[row, :7, :7] = 1  # 49 pixels: called nothing
            elif not (kind == 1 and row == 1):
                prediction[row, top + 1 : top + 21 - 4 * kind, left : left + 12] = 1
        sample = SegDataSample(
            metainfo=dict(
                img_path=f'{image_id}.jpg',
                image_id=image_id,
                expressions=['it'] * num,
                num_targets=[int(mask.any()) for mask in truth],
            )
        )
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth))
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction))
        samples.append(sample)
    return samples


def by_loop(samples, min_pixels=50):
    """The table of the docstring, expression by expression."""
    ious, inter, union, hits, kept, found = [], 0, 0, 0, [], []
    for sample in samples:
        for truth, said in zip(sample.gt_sem_seg.data, sample.pred_sem_seg.data):
            truth, said = truth.numpy() > 0, said.numpy() > 0
            called_nothing = said.sum() < min_pixels
            if not truth.any():
                found.append(called_nothing)
                ious.append(float(called_nothing))
                union += 0 if called_nothing else said.sum()
                continue
            kept.append(not called_nothing)
            common = 0 if called_nothing else (truth & said).sum()
            inter, union = inter + common, union + (truth | said).sum()
            ious.append(common / (truth | said).sum())
            hits += ious[-1] >= 0.7
    return {
        'gIoU': 100 * np.mean(ious),
        'cIoU': 100 * inter / union,
        'N-acc': np.mean(found),
        'T-acc': np.mean(kept),
        'Pr@0.7': 100 * hits / len(kept),
        'expressions': 8,
    }


def test_nothing_by_area_equals_a_loop():
    samples = make_samples()
    expected = by_loop(samples)
    metrics = evaluate(samples, thresholds=[0.7])
    assert metrics == pytest.approx(expected)
    # Every row of the table occurs.
    assert 0 < expected['N-acc'] < 1 and 0 < expected['T-acc'] < 1 and expected['Pr@0.7'] > 0
    assert evaluate(samples, thresholds=[0.7], min_pixels=1) == pytest.approx(by_loop(samples, 1))
    assert by_loop(samples, 1)['T-acc'] == 1


@pytest.mark.parametrize('pixels, nothing', [(0, True), (49, True), (50, False), (51, False)])
@pytest.mark.parametrize('is_empty', [True, False])
def test_fifty_pixels_are_something(pixels, nothing, is_empty):
    sample = make_samples()[1]
    sample.pred_sem_seg.data.zero_().flatten()[:pixels] = 1
    sample.gt_sem_seg.data.copy_(0 if is_empty else sample.pred_sem_seg.data)
    sample.set_metainfo(dict(num_targets=[0 if is_empty else 1]))
    metrics = evaluate([sample])
    assert metrics['gIoU'] == (100 if nothing == is_empty else 0)
    assert metrics['N-acc'] == (is_empty and nothing)
    if pixels and not (is_empty and nothing):
        assert metrics['cIoU'] == (0 if is_empty or nothing else 100)


def test_without_expressions_nothing_is_measured():
    metric = METRICS.build(dict(type='GeneralizedReferringIoU'))
    metrics = metric.compute_metrics([])
    assert metrics.pop('expressions') == metrics.pop('N-acc') == metrics.pop('T-acc') == 0
    assert len(metrics) == 5 and all(map(math.isnan, metrics.values()))


def test_the_true_mask_tells_where_num_targets_is_missing():
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
    with pytest.raises(KeyError, match=r"0\.jpg: .*no `no_target`.*no_target='area'"):
        evaluate(without, no_target='score')


def test_pixels_of_padding_do_not_count():
    samples = make_samples()
    expected = evaluate(samples)
    for sample in samples:
        truth, said = sample.gt_sem_seg.data, sample.pred_sem_seg.data
        truth = torch.nn.functional.pad(truth, (0, 6), value=255)
        said = torch.nn.functional.pad(said, (0, 6), value=1)
        del sample.gt_sem_seg, sample.pred_sem_seg
        sample.gt_sem_seg, sample.pred_sem_seg = PixelData(data=truth), PixelData(data=said)
    assert evaluate(samples) == expected


@pytest.mark.parametrize(
    'options, word',
    [
        (dict(no_target='mask'), 'no_target'),
        (dict(min_pixels=0), 'min_pixels'),
        (dict(thresholds=[70]), 'thresholds'),
        (dict(thresholds=[0.7, 0.7]), 'twice'),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        METRICS.build(dict(type='GeneralizedReferringIoU', **options))


def test_values_that_do_not_fit_name_the_image():
    sample = make_samples()[2]
    sample.set_metainfo(dict(num_targets=[1, 1]))
    with pytest.raises(ValueError, match=r'2\.jpg: `num_targets` of shape \(2,\) for 4'):
        evaluate([sample])


SCRIPT = """
import os, pickle, sys
import torch.distributed
import nemo_mmseg
from mmengine.evaluator import Evaluator
from mmseg.registry import METRICS
sys.path.insert(0, os.environ['TEST_FOLDER'])
from test_generalized_referring_iou import make_samples

torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank()
samples = make_samples()
evaluator = Evaluator([METRICS.build(dict(type='GeneralizedReferringIoU', thresholds=[0.7]))])
for index in [[0, 2], [1, 0]][rank]:  # the last one is padding
    evaluator.process([samples[index]])
metrics = evaluator.evaluate(3)
pickle.dump(metrics, open(f'{rank}.pkl', 'wb'))
torch.distributed.destroy_process_group()
"""


def test_two_ranks_equal_a_loop(tmp_path):
    (tmp_path / 'run.py').write_text(SCRIPT)
    here = Path(__file__).parent
    env = dict(
        os.environ,
        TEST_FOLDER=str(here),
        OMP_NUM_THREADS='1',
        PYTHONPATH=os.pathsep.join([str(here.parents[1]), os.environ.get('PYTHONPATH', '')]),
    )
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    subprocess.run(
        [*command, 'run.py'], cwd=tmp_path, env=env, check=True, timeout=300, capture_output=True
    )
    for rank in range(2):
        with open(tmp_path / f'{rank}.pkl', 'rb') as file:
            assert pickle.load(file) == pytest.approx(by_loop(make_samples()))
