"""ReferringIoU against numpy, on one rank and on two real ones with uneven shares."""

import csv
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
from nemo_mmseg.evaluation.difficulty import slice_by

NUMS = (1, 4, 2)  # 3 images with 7 expressions in all
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def make_samples() -> list[SegDataSample]:
    """Three images of different sizes; prediction = gt with some pixels flipped."""
    rng = np.random.default_rng(3)
    samples, sent_id = [], 0
    for image_id, (num, noise) in enumerate(zip(NUMS, (0.02, 0.3, 0.1), strict=True)):
        height, width = 30 + 7 * image_id, 41 - 5 * image_id
        gt = np.zeros((num, height, width), np.uint8)
        for row in range(num):
            top, left = rng.integers(0, 10, 2)
            gt[row, top : top + 9 + row, left : left + 11] = 1
        prediction = gt ^ (rng.random(gt.shape) < noise)
        gt[:, -1] = 255
        sample = SegDataSample(
            metainfo=dict(
                img_path=f'{image_id}.jpg',
                image_id=image_id,
                expressions=[f'thing {row}' for row in range(num)],
                sent_ids=list(range(sent_id, sent_id + num)),
                ref_ids=[image_id] * num,
                num_distractors=[row % 3 for row in range(num)],
                ori_shape=(height, width),
            )
        )
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(gt))
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction))
        samples.append(sample)
        sent_id += num
    return samples


def by_numpy(samples: list[SegDataSample]) -> dict[str, float]:
    """The same figures, counted mask by mask."""
    intersections, unions = [], []
    for sample in samples:
        for gt, prediction in zip(sample.gt_sem_seg.data, sample.pred_sem_seg.data, strict=True):
            gt, prediction = gt.numpy(), prediction.numpy()
            keep = gt != 255
            intersections.append(np.sum((gt == 1) & (prediction == 1) & keep))
            unions.append(np.sum(((gt == 1) | (prediction == 1)) & keep))
    iou = np.array(intersections) / np.array(unions)
    expected = dict(oIoU=100 * np.sum(intersections) / np.sum(unions), mIoU=100 * iou.mean())
    expected.update({f'Pr@{x}': 100 * np.mean(iou >= x) for x in THRESHOLDS})
    expected.update(expressions=7, images=3)
    distractors = np.concatenate([sample.num_distractors for sample in samples])
    for number in range(3):
        rows = np.flatnonzero(distractors == number)
        total = sum(intersections[row] for row in rows) / sum(unions[row] for row in rows)
        expected[f'distractors={number}/oIoU'] = 100 * total
        expected[f'distractors={number}/mIoU'] = 100 * iou[rows].mean()
    return expected


def test_one_rank_equals_numpy():
    samples = make_samples()
    evaluator = Evaluator([METRICS.build(dict(type='ReferringIoU', by='distractors'))])
    evaluator.process(samples[:2])
    evaluator.process(samples[2:])
    expected = by_numpy(samples)
    assert evaluator.evaluate(3) == pytest.approx(expected)
    assert 0 < expected['mIoU'] < 100 and expected['oIoU'] != pytest.approx(expected['mIoU'])

    scores = evaluator.metrics[0].scores
    assert scores.sent_ids.tolist() == list(range(7))
    assert scores.num_distractors.tolist() == [0, 0, 1, 2, 0, 0, 1]
    gt = samples[1].gt_sem_seg.data[2]
    assert scores.target_area[3] == pytest.approx(int((gt == 1).sum()) / gt.numel())


def test_data_sets_evaluated_together_are_measured_apart_too():
    samples = make_samples()
    for sample, name in zip(samples, ('refcoco', 'refcoco+', 'refcoco')):
        sample.set_metainfo(dict(dataset_name=name))
    evaluator = Evaluator([METRICS.build(dict(type='ReferringIoU', prefix='val'))])
    metrics = []
    for part in (samples, [samples[0], samples[2]]):
        evaluator.process(part)
        metrics.append(evaluator.evaluate(len(part)))
    for key in ('oIoU', 'mIoU', 'Pr@0.9'):
        assert metrics[0][f'val/refcoco/{key}'] == metrics[1][f'val/{key}']
    assert 'val/refcoco+/oIoU' in metrics[0] and 'val/refcoco/oIoU' not in metrics[1]


def test_slices_as_csv(tmp_path: Path):
    file = tmp_path / 'new' / 'difficulty.csv'
    options = dict(by=['distractors', 'length'], csv_file=str(file), prefix='val')
    evaluator = Evaluator([METRICS.build(dict(type='ReferringIoU', **options))])
    for _ in range(2):  # the second evaluation writes it anew
        evaluator.process(make_samples())
        metrics = evaluator.evaluate(3)
    assert [path.name for path in file.parent.iterdir()] == ['difficulty.csv']
    with file.open(newline='') as opened:
        lines = list(csv.DictReader(opened))
    assert [(line['by'], line['slice']) for line in lines] == [
        *(('all', 'all'), ('distractors', '0'), ('distractors', '1'), ('distractors', '2')),
        ('length', '1-5'),
    ]
    assert [line['expressions'] for line in lines] == ['7', '4', '2', '1', '7']
    assert [line['images'] for line in lines] == ['3', '3', '2', '1', '3']
    expected = by_numpy(make_samples())
    for line, start in zip(lines, ['', *(f'distractors={n}/' for n in range(3)), '']):
        for key in ('oIoU', 'mIoU'):
            assert float(line[key]) == pytest.approx(expected[start + key])
            assert float(line[key]) == metrics[f'val/{start}{key}']
        assert 'Pr@0.5' in line and 'Pr@0.9' in line


@pytest.mark.parametrize('by', [None, (), []])
def test_only_what_is_compared_is_needed(by):
    samples = make_samples()
    for sample in samples:
        for key in ('expressions', 'sent_ids', 'ref_ids', 'num_distractors', 'image_id'):
            sample.set_metainfo({key: None})
    metric = METRICS.build(dict(type='ReferringIoU', by=by))
    evaluator = Evaluator([metric])
    evaluator.process(samples)
    metrics = evaluator.evaluate(3)
    expected = by_numpy(make_samples())
    assert metrics == pytest.approx({key: expected[key] for key in metrics})
    assert 'images' in metrics and not any('=' in key for key in metrics)
    for name in ('distractors', 'length'):
        assert list(slice_by(metric.scores, name)) == ['unknown']


def test_an_item_without_expressions_counts_nothing():
    sample = make_samples()[0]
    for key in ('expressions', 'sent_ids', 'ref_ids', 'num_distractors'):
        sample.set_metainfo({key: []})
    for key in ('gt_sem_seg', 'pred_sem_seg'):
        sample.set_data({key: PixelData(data=sample.get(key).data[:0])})
    evaluator = Evaluator([METRICS.build(dict(type='ReferringIoU', by='distractors'))])
    evaluator.process([sample, *make_samples()])
    assert evaluator.evaluate(4) == pytest.approx(by_numpy(make_samples()))


SCRIPT = """
import os, pickle, sys
import torch.distributed
import nemo_mmseg
from mmengine.evaluator import Evaluator
from mmseg.registry import METRICS
sys.path.insert(0, os.environ['TEST_FOLDER'])
from test_referring_iou import make_samples

torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank()
samples = make_samples()
found = []
for device, shares in (('cpu', [[0, 2], [1]]), ('gpu', [[0, 2], [1, 0]])):  # the last 0: padding
    options = dict(by=['distractors'], collect_device=device)
    evaluator = Evaluator([METRICS.build(dict(type='ReferringIoU', **options))])
    for index in shares[rank]:
        evaluator.process([samples[index]])
    found.append(evaluator.evaluate(3))
pickle.dump(found, open(f'{rank}.pkl', 'wb'))
torch.distributed.destroy_process_group()
"""


def test_two_ranks_equal_numpy(tmp_path: Path):
    (tmp_path / 'run.py').write_text(SCRIPT)
    env = dict(os.environ, TEST_FOLDER=str(Path(__file__).parent), OMP_NUM_THREADS='1')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    subprocess.run(
        [*command, 'run.py'], cwd=tmp_path, env=env, check=True, timeout=300, capture_output=True
    )
    expected = by_numpy(make_samples())
    for rank in range(2):
        with open(tmp_path / f'{rank}.pkl', 'rb') as file:
            for found in pickle.load(file):
                assert found == pytest.approx(expected)


def test_masks_of_different_sizes_name_the_image():
    sample = make_samples()[1]
    del sample.pred_sem_seg
    sample.pred_sem_seg = PixelData(data=torch.zeros(4, 5, 6))
    with pytest.raises(ValueError, match=r'1\.jpg.*\(4, 5, 6\)'):
        Evaluator([METRICS.build(dict(type='ReferringIoU'))]).process([sample])


def test_a_missing_expression_names_the_image():
    sample = make_samples()[1]
    sample.set_metainfo(dict(expressions=['only one']))
    with pytest.raises(ValueError, match=r"1\.jpg.*'union': 4.*'expressions': 1"):
        Evaluator([METRICS.build(dict(type='ReferringIoU'))]).process([sample])


@pytest.mark.parametrize(
    'options, word',
    [
        (dict(tie='<'), 'tie'),
        (dict(empty_union=2), 'empty_union'),
        (dict(thresholds=[50]), 'thresholds'),
        (dict(by=['distractor']), "'distractor'.*'distractors', 'length'"),
    ],
)
def test_bad_options(options: dict, word: str):
    with pytest.raises(ValueError, match=word):
        METRICS.build(dict(type='ReferringIoU', **options))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_counts_on_the_gpu():
    samples = make_samples()
    evaluator = Evaluator([METRICS.build(dict(type='ReferringIoU', by='distractors'))])
    evaluator.process([sample.cuda() for sample in samples])
    assert evaluator.evaluate(3) == pytest.approx(by_numpy([s.cpu() for s in samples]))
