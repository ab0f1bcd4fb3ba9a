"""Pointing and boxes, against loops over pixels and cases whose result is seen by eye."""

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS, METRICS

from nemo_mmseg.evaluation.boxes import box_iou, plain_box, published_boxes
from nemo_mmseg.evaluation.localization import first_maximum


def rectangle(shape, x1, y1, x2, y2):
    mask = np.zeros(shape, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def sample(masks, responses, gts, boxes, **meta):
    """A data sample as MMEngine hands it to metrics."""
    meta = dict(ori_shape=np.asarray(masks[0]).shape, img_path='a.jpg') | meta
    return dict(
        pred_sem_seg=dict(data=torch.tensor(np.stack(masks), dtype=torch.uint8)),
        seg_logits=dict(data=torch.tensor(np.stack(responses), dtype=torch.float32)),
        gt_sem_seg=dict(data=torch.tensor(np.stack(gts), dtype=torch.uint8)),
        gt_bboxes=boxes,
        **meta,
    )


def measure(*samples, **settings):
    metric = METRICS.build(dict(type='ReferringLocalization', **settings))
    for one in samples:
        metric.process(None, [one])
    return metric.compute_metrics(metric.results)


def peak(shape, y, x):
    response = np.full(shape, 0.1)
    response[y, x] = 1.0
    return response


def test_the_first_of_equal_maxima_is_the_point():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 4, (50, 7, 9)).astype(np.float32)
    expected = [np.unravel_index(one.argmax(), one.shape) for one in maps]
    np.testing.assert_array_equal(first_maximum(torch.from_numpy(maps)), expected)


@pytest.mark.parametrize(
    'y, x, it, m',
    [(5, 6, 100, 100), (10, 20, 100, 0), (11, 20, 0, 0), (5, 5, 100, 0), (4, 6, 0, 0)],
)
def test_pointing(y, x, it, m):
    shape = (30, 40)
    gt = rectangle(shape, 6, 5, 20, 10)
    values = measure(sample([gt], [peak(shape, y, x)], [gt], [[[5, 5, 20, 10]]]))
    assert (values['PointIt'], values['PointM']) == (it, m)


def test_any_box_may_be_pointed_at_and_only_the_first_is_compared_as_published():
    shape = (30, 40)
    near, far = [6, 5, 20, 10], [25, 20, 35, 29]
    mask = rectangle(shape, *near)
    for boxes, published in (([near, far], 100), ([far, near], 0)):
        values = measure(sample([mask], [peak(shape, 6, 7)], [mask], [boxes]))
        assert values['PointIt'] == 100
        assert values['Acc_box'] == values['box_mIoU'] == published
        assert values['Acc_box_plain'] == 100


def test_a_whole_image_has_a_plain_box_and_no_published_one():
    shape = (30, 40)
    mask = np.ones(shape, bool)
    values = measure(sample([mask], [peak(shape, 6, 7)], [mask], [[[0, 0, 40, 30]]]))
    assert (values['Acc_box'], values['Acc_box_plain']) == (0, 100)


def test_nothing_predicted_has_no_box():
    nothing = np.zeros((30, 40), bool)
    gt = rectangle((30, 40), 0, 0, 1, 1)
    values = measure(sample([nothing], [nothing], [gt], [[[0, 0, 3, 3]]]))
    assert (values['Acc_box'], values['Acc_box_plain'], values['mIoU']) == (0, 0, 0)


def test_specks_throw_out_a_published_box_and_no_plain_one():
    shape = (60, 80)
    cross = rectangle(shape, 30, 25, 70, 27) | rectangle(shape, 49, 10, 51, 50)
    mask = cross.copy()
    mask[2, 2] = True
    assert published_boxes(cross)[:, :4].tolist() == [[30, 10, 70, 50]]
    assert published_boxes(mask)[:, :4].tolist() == [[2, 2, 3, 3]]
    assert plain_box(mask, (26, 40)).tolist() == [30, 10, 70, 50]
    # the largest part where the point lies outside
    assert plain_box(mask, (59, 79)).tolist() == [30, 10, 70, 50]
    assert plain_box(mask, (2, 2)).tolist() == [2, 2, 3, 3]


def test_diagonal_neighbours_are_one_part():
    mask = np.eye(10, dtype=bool)
    assert plain_box(mask, (3, 3)).tolist() == [0, 0, 10, 10]


def test_box_iou_is_that_of_pixels():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 20, (2, 30, 2, 2)), axis=2)
    boxes, others = corners.reshape(2, 30, 4)
    found = box_iou(boxes, others)
    for i, one in enumerate(boxes):
        for j, other in enumerate(others):
            masks = [rectangle((20, 20), *box) for box in (one, other)]
            union = (masks[0] | masks[1]).sum()
            expected = (masks[0] & masks[1]).sum() / union if union else 0
            assert found[i, j] == pytest.approx(expected)


def test_slices_by_difficulty_have_the_measures(tmp_path):
    shape = (30, 40)
    gt = rectangle(shape, 6, 5, 20, 10)
    one = sample(
        [gt, ~gt],
        [peak(shape, 6, 7), peak(shape, 0, 0)],
        [gt, gt],
        [[[6, 5, 20, 10]]] * 2,
        expressions=['left cup', 'the cup that stands on the old table'],
        num_distractors=[0, 0],
    )
    values = measure(one, by=['length'], csv_file=str(tmp_path / 'table.csv'))
    assert values['length=1-5/PointM'] == values['length=1-5/mIoU'] == 100
    assert values['length=8-10/PointM'] == values['length=8-10/mIoU'] == 0
    assert values['PointM'] == values['PointIt'] == 50
    assert 'PointM' in (tmp_path / 'table.csv').read_text().splitlines()[0]


def test_nothing_evaluated_has_all_names():
    assert {'PointIt', 'PointM', 'Acc_box', 'Acc_box_plain', 'box_mIoU', 'oIoU'} <= set(measure())


def test_a_protocol_of_another_size_is_refused():
    gt = rectangle((30, 40), 6, 5, 20, 10)
    with pytest.raises(ValueError, match=r'a\.jpg: boxes are compared at the size of the image'):
        measure(sample([gt], [gt], [gt], [[[0, 0, 1, 1]]], ori_shape=(60, 80)))


def test_missing_boxes_name_the_transform():
    gt = rectangle((30, 40), 6, 5, 20, 10)
    with pytest.raises(KeyError, match='LoadReferentBoxes'):
        measure(sample([gt], [gt], [gt], None))


def test_the_pipeline_brings_the_boxes(mini):
    pipeline = [
        dict(type=name)
        for name in (
            'LoadReferringImage', 'LoadReferentMask', 'LoadReferentBoxes', 'PackReferringInputs',
        )
    ]  # fmt: skip
    for annotation in mini.instances['annotations']:
        annotation['bbox'] = [4.9, 3.2, 20.7, 15.9]
    dataset = DATASETS.build(mini.write().config(pipeline, group_by='image', test_mode=True))
    boxes = dataset[0]['data_samples'].gt_bboxes
    assert boxes == [[[4, 3, 24, 18]]] * 4
    mini.instances['annotations'][0].pop('bbox')
    dataset = DATASETS.build(mini.write().config(pipeline, group_by='image', test_mode=True))
    with pytest.raises(ValueError, match=r'annotation 101 of .*image_1\.jpg has no box'):
        dataset[0]
