"""R-RefCOCO's and Ref-ZOM's metrics against loops over expressions, and against numbers by hand."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

import nemo_mmseg  # noqa: F401  (registers)

SHAPE = 8, 10


def make_sample(ref_ids, true, gt, prediction, scores=None, **meta):
    """A data sample; `true` says which expressions have a target, `scores` reject if above 0."""
    sample = SegDataSample(
        metainfo=dict(
            img_path=f'{ref_ids[0]}.jpg',
            ref_ids=list(ref_ids),
            sent_ids=list(range(len(ref_ids))),
            expressions=['it'] * len(ref_ids),
            num_targets=[int(one) for one in true],
            **meta,
        )
    )
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(gt.astype(np.uint8)))
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction.astype(np.uint8)))
    if scores is not None:
        sample.set_data({'no_target': torch.tensor(scores)})
    return sample


def evaluate(kind, samples, **options):
    evaluator = Evaluator([METRICS.build(dict(type=kind, **options))])
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def random_samples(seed, with_scores):
    rng, samples = np.random.default_rng(seed), []
    for image in range(6):
        ref_ids = np.repeat([2 * image, 2 * image + 1], rng.integers(1, 5, 2)).tolist()
        num = len(ref_ids)
        true = rng.random(num) < 0.6
        true[0] = true[-1] = True  # a reference without a true expression is tested below
        gt = (rng.random((num, *SHAPE)) < 0.4) & true[:, None, None]
        # Mostly right, so that several thresholds are reached; some masks are empty.
        prediction = np.where(rng.random((num, *SHAPE)) < 0.75, gt, rng.random((num, *SHAPE)) < 0.3)
        prediction &= (rng.random(num) < 0.7)[:, None, None]
        scores = rng.normal(-0.5, 1, num).tolist() if with_scores else None
        samples.append((ref_ids, true, gt, prediction, scores))
    return samples


def by_reference(samples):
    """The expressions of each reference in their order: true, I, U, predicted pixels, rejected."""
    table = {}
    for ref_ids, true, gt, prediction, scores in samples:
        for row, ref_id in enumerate(ref_ids):
            rejected = not prediction[row].any() or (scores is not None and scores[row] > 0)
            shown = np.zeros(SHAPE, bool) if rejected else prediction[row]
            inside, joint = (shown & gt[row]).sum(), (shown | gt[row]).sum()
            table.setdefault(ref_id, []).append((true[row], inside, joint, shown.sum(), rejected))
    return list(table.values())


@pytest.mark.parametrize('with_scores', [False, True])
def test_r_refcoco_equals_a_loop_over_references(with_scores):
    samples = random_samples(3, with_scores)
    ious, means, robust, rejections, hits, inflated = [], [], [], [], [], []
    total = np.zeros(2)
    for expressions in by_reference(samples):
        inside = joint = false_pixels = running = 0
        own, rejected = [], []
        for true, common, union, pixels, is_rejected in expressions:
            if true:
                own.append(common / union)
                inside, joint = inside + common, joint + union
                running += common / union
                hits.append(own[-1] >= 0.5)
                inflated.append(running >= 0.5)
            else:
                rejected.append(is_rejected)
                false_pixels += pixels
        total += inside, joint
        ious += own
        robust.append(inside / (joint + false_pixels))
        if own:
            means.append(np.mean(own))
        if rejected:
            rejections.append(np.mean(rejected))
    assert 0 < np.mean(hits) < np.mean(inflated) < 1 and 0 < np.mean(rejections) < 1
    metrics = evaluate('RobustReferringIoU', [make_sample(*one) for one in samples])
    expected = {
        'oIoU': total[0] / total[1],
        'mIoU': np.mean(ious),
        'r': np.mean(rejections),
        'rIoU': np.mean(robust),
        'Pr@0.5': np.mean(hits),
        'Pr@0.5_published': np.mean(inflated),
        'mIoU_published': np.mean(means),
    }
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(100 * value, rel=1e-12), key


def block(rows):
    mask = np.zeros(SHAPE, bool)
    mask[:rows] = True
    return mask


def test_the_published_precision_counts_a_sum_of_ious():
    # Two true expressions of one reference: IoU 3 / 8 each. Neither reaches 0.5, their sum does.
    gt, prediction = np.stack([block(8)] * 2), np.stack([block(3)] * 2)
    metrics = evaluate('RobustReferringIoU', [make_sample([1, 1], [1, 1], gt, prediction)])
    assert metrics['Pr@0.5'] == 0 and metrics['Pr@0.5_published'] == 50
    assert metrics['Pr@0.8_published'] == 0 and metrics['mIoU'] == 37.5
    assert np.isnan(metrics['r']), 'there is no false expression'


def test_false_expressions_cost_what_is_drawn_for_them():
    # I = 4 rows, U = 8 rows; the accepted false expression draws 2 rows more: 4 / 10.
    gt = np.stack([block(8), block(0), block(0)])
    prediction = np.stack([block(4), block(2), block(0)])
    metrics = evaluate('RobustReferringIoU', [make_sample([1] * 3, [1, 0, 0], gt, prediction)])
    assert metrics['rIoU'] == pytest.approx(40) and metrics['r'] == 50 and metrics['oIoU'] == 50


def test_a_rejected_true_expression_has_an_empty_mask():
    gt, prediction = block(4)[None], block(6)[None]
    metrics = evaluate('RobustReferringIoU', [make_sample([1], [1], gt, prediction, [0.1])])
    assert metrics['oIoU'] == metrics['rIoU'] == metrics['mIoU'] == 0
    metrics = evaluate('RobustReferringIoU', [make_sample([1], [1], gt, prediction, [-0.1])])
    assert metrics['oIoU'] == pytest.approx(100 * 4 / 6)


def test_references_of_two_data_sets_are_two_even_with_one_id():
    gt, names = block(8)[None], ('a', 'b')
    samples = [
        make_sample([1], [1], gt, block(rows)[None], dataset_name=name)
        for name, rows in zip(names, (2, 8))
    ]
    metrics = evaluate('RobustReferringIoU', samples)
    assert metrics['rIoU'] == pytest.approx((25 + 100) / 2)
    assert metrics['Pr@0.9_published'] == 50
    assert metrics['a/rIoU'] == pytest.approx(25)


def test_a_reference_of_false_expressions_alone_counts_in_r_and_by_its_pixels():
    nothing = np.stack([block(0)] * 2)
    samples = [
        make_sample([1, 1], [0, 0], nothing, np.stack([block(0), block(1)])),
        make_sample([2], [1], block(4)[None], block(4)[None]),
        make_sample([3], [0], nothing[:1], nothing[:1]),  # all rejected: no pixels to measure
    ]
    metrics = evaluate('RobustReferringIoU', samples)
    assert metrics['r'] == pytest.approx((50 + 100) / 2)
    assert metrics['rIoU'] == pytest.approx((0 + 100) / 2)


def test_r_refcoco_needs_references():
    sample = make_sample([1], [1], block(4)[None], block(4)[None])
    sample.pop('ref_ids')
    with pytest.raises(ValueError, match='the samples need `ref_ids`'):
        evaluate('RobustReferringIoU', [sample])


@pytest.mark.parametrize('with_scores', [False, True])
def test_ref_zom_equals_a_loop_over_expressions(with_scores):
    samples = random_samples(5, with_scores)
    rows = [row for expressions in by_reference(samples) for row in expressions]
    positive = np.array([row[1:3] for row in rows if row[0]], dtype=float)
    ious = positive[:, 0] / positive[:, 1]
    metrics = evaluate('RefZOMIoU', [make_sample(*one) for one in samples])
    expected = {
        'oIoU': positive[:, 0].sum() / positive[:, 1].sum(),
        'mIoU': ious.mean(),
        'Acc': np.mean([row[4] for row in rows if not row[0]]),
        'Pr@0.7': (ious >= 0.7).mean(),
    }
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(100 * value, rel=1e-12), key


def test_one_pixel_is_a_failure_of_acc_unless_the_score_rejects_it():
    speck = np.zeros((1, *SHAPE), bool)
    speck[0, 3, 3] = True
    one = make_sample([1], [0], block(0)[None], speck, [0.2])
    assert evaluate('RefZOMIoU', [one])['Acc'] == 100
    assert evaluate('RefZOMIoU', [one], no_target='area')['Acc'] == 0
    assert evaluate('RefZOMIoU', [one], no_target='area', min_pixels=2)['Acc'] == 100


@pytest.mark.parametrize('kind', ['RobustReferringIoU', 'RefZOMIoU'])
def test_slices_and_their_file_have_these_measures(kind, tmp_path):
    samples = [make_sample(*one) for one in random_samples(3, False)]
    file = tmp_path / 'slices.csv'
    metrics = evaluate(kind, samples, by=['length'], csv_file=str(file))
    assert metrics['length=1-5/mIoU'] == pytest.approx(metrics['mIoU'])
    header = file.read_text().splitlines()[0].split(',')
    assert {'r', 'rIoU'} <= set(header) or 'Acc' in header
    with pytest.raises(ValueError, match="no_target='box' is none of"):
        evaluate(kind, samples, no_target='box')
