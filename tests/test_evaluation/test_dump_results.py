"""The written results: masks, JSON, and colliding ids."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample
from PIL import Image
from pycocotools import mask as coco_mask

from nemo_mmseg.evaluation.predictions import describe_mask
from nemo_mmseg.evaluation.scores import ExpressionScores
from nemo_mmseg.utils.rle import encode_mask


def make_sample(image_id: int, sent_ids: list[int], scale: int = 1) -> SegDataSample:
    """One image of 20x30 whose masks are compared at `scale` times the size."""
    num = len(sent_ids)
    masks = torch.zeros(num, 20 * scale, 30 * scale, dtype=torch.uint8)
    masks[:, 4 * scale : 10 * scale, 5 * scale : 25 * scale] = 1
    sample = SegDataSample(
        metainfo=dict(
            img_path=f'{image_id}.jpg',
            image_id=image_id,
            sent_ids=sent_ids,
            ref_ids=[7] * num,
            expressions=[f'say "é" {i}' for i in sent_ids],
            num_distractors=[i % 4 for i in sent_ids],
            ori_shape=(20, 30),
        )
    )
    sample.gt_sem_seg = PixelData(data=masks)
    prediction = masks.clone()
    prediction[:, :, 15 * scale :] = 0
    sample.pred_sem_seg = PixelData(data=prediction)
    sample.seg_logits = PixelData(data=prediction * 0.75)
    return sample


@pytest.mark.parametrize('scale', [1, 3])
def test_written_files(tmp_path: Path, scale: int):
    evaluator = Evaluator([METRICS.build(dict(type='DumpReferringResults', out_dir=tmp_path))])
    evaluator.dataset_meta = dict(dataset_name='refcoco')
    evaluator.process([make_sample(2, [30, 31], scale), make_sample(1, [12], scale)])
    assert not (tmp_path / 'predictions.json').exists()
    assert evaluator.evaluate(2) == {}

    content = json.loads((tmp_path / 'predictions.json').read_text('utf-8'))
    assert content['dataset'] == 'refcoco' and content['num_expressions'] == 3
    records = content['predictions']
    assert [record['sent_id'] for record in records] == [12, 30, 31]
    expected = np.zeros((20, 30), bool)
    expected[4:10, 5:15] = True
    for record in records:
        assert np.array_equal(coco_mask.decode(record['rle']), expected)
        assert np.array_equal(np.array(Image.open(tmp_path / record['mask'])), expected)
        assert record['iou'] == 0.5 and record['area'] == 60 and record['bbox'] == [5, 4, 10, 6]
        assert record['score'] == pytest.approx(0.75) and record['ref_id'] == 7
        # as the protocol compares: at its own size
        assert record['intersection'] == 60 * scale**2 and record['union'] == 120 * scale**2
        assert record['target_area'] == pytest.approx(0.2)
        assert record['num_distractors'] == record['sent_id'] % 4
    assert records[0]['expression'] == 'say "é" 12' and records[0]['image_id'] == 1
    assert sorted(path.name for path in tmp_path.rglob('*') if path.is_file()) == [
        '12.png',
        '30.png',
        '31.png',
        'predictions.json',
    ]


def test_read_again_as_the_metric_counts(tmp_path: Path):
    options = dict(tie='>', empty_union=0.0)
    metrics = [
        METRICS.build(dict(type='ReferringIoU', **options)),
        METRICS.build(dict(type='DumpReferringResults', out_dir=tmp_path, **options)),
    ]
    evaluator = Evaluator(metrics)
    samples = [make_sample(2, [30, 31]), make_sample(1, [12])]
    samples[1].pred_sem_seg.data[:] = samples[1].gt_sem_seg.data
    evaluator.process(samples)
    logged = evaluator.evaluate(2)
    for path in (tmp_path, tmp_path / 'predictions.json'):
        scores = ExpressionScores.read(path)
        assert scores.sent_ids.tolist() == [12, 30, 31]
        summary = scores.summary()
        assert summary['Pr@0.5'] == pytest.approx(100 / 3)  # an IoU of 0.5 is no hit by ">"
        assert summary == {key: logged[key] for key in summary}
        in_memory = metrics[0].scores.take(np.array([2, 0, 1]))
        for column, value in vars(scores).items():
            assert np.array_equal(value, getattr(in_memory, column)), column


def test_old_list_goes_first(tmp_path: Path):
    (tmp_path / 'predictions.json').write_text('old')
    metric = METRICS.build(dict(type='DumpReferringResults', out_dir=str(tmp_path)))
    Evaluator([metric]).process([make_sample(1, [1])])
    assert not (tmp_path / 'predictions.json').exists()


def test_colliding_ids_are_refused(tmp_path: Path):
    metric = METRICS.build(dict(type='DumpReferringResults', out_dir=str(tmp_path)))
    with pytest.raises(ValueError, match='sent_id 5 belongs to .*1.jpg.* and to .*2.jpg'):
        Evaluator([metric]).process([make_sample(1, [5]), make_sample(2, [5])])
    other = make_sample(1, [5])  # RefCOCO and RefCOCO+ share images
    other.set_metainfo(dict(expressions=['other words']))
    with pytest.raises(ValueError, match="sent_id 5 belongs to .* 5'.* and to .*'other words'"):
        Evaluator([metric]).process([make_sample(1, [5]), other])
    Evaluator([metric]).process([make_sample(1, [5]), make_sample(1, [5])])  # one sample repeated
    ranks = [METRICS.build(dict(type='DumpReferringResults', out_dir=str(tmp_path))) for _ in 'ab']
    for rank, sample in zip(ranks, (make_sample(1, [5]), other)):
        rank.process(None, [sample.to_dict()])
    with pytest.raises(ValueError, match="sent_id 5 belongs to .* 5'.* and to .*'other words'"):
        ranks[0].compute_metrics(ranks[0].results + ranks[1].results)


def test_without_ground_truth_and_with_an_empty_mask(tmp_path: Path):
    sample = make_sample(1, [1])
    del sample.gt_sem_seg
    sample.pred_sem_seg.data[:] = 0
    metric = METRICS.build(dict(type='DumpReferringResults', out_dir=str(tmp_path)))
    evaluator = Evaluator([metric])
    evaluator.process([sample])
    evaluator.evaluate(1)
    record = json.loads((tmp_path / 'predictions.json').read_text())['predictions'][0]
    assert record['iou'] is None and record['bbox'] is None and record['union'] is None
    assert record['score'] == 0 and record['area'] == 0


def test_rle_and_box_of_random_masks():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((13, 9)) < rng.random()
        assert np.array_equal(coco_mask.decode(encode_mask(mask)), mask)
        box = describe_mask(mask)['bbox']
        if box:
            left, top, width, height = box
            inside = np.zeros_like(mask)
            inside[top : top + height, left : left + width] = True
            assert not (mask & ~inside).any()
            assert mask[:, left].any() and mask[:, left + width - 1].any()
            assert mask[top].any() and mask[top + height - 1].any()
