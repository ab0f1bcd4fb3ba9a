"""Masks of referents, against zeros with each target painted over them."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.datasets.transforms.loading import LoadReferentMask, referent_masks

RNG = np.random.default_rng(0)


def polygons(count):
    return [(RNG.uniform(2, 28, (6, 2)) * (1.5, 1)).ravel().tolist() for _ in range(count)]


def painted(results):
    shape = results['height'], results['width']
    masks = np.zeros((len(results['targets']), *shape), np.uint8)
    for mask, targets in zip(masks, results['targets']):
        for target in targets:
            rles = coco_mask.frPyObjects(results['instances'][target]['segmentation'], *shape)
            mask |= coco_mask.decode(rles).max(axis=2)
    return masks


@pytest.mark.parametrize('targets', [[[0]], [[1], [1], [0, 2]], [[]], [[2, 0, 1], []]], ids=str)
def test_masks_are_unions_of_targets(targets):
    instances = [dict(ann_id=i, segmentation=polygons(i + 1)) for i in range(3)]
    item = dict(instances=instances, targets=targets, height=30, width=45, img_path='a.jpg')
    masks = referent_masks(item)
    assert masks.flags.c_contiguous and masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, painted(item))
    assert decode_segmentation(instances[0]['segmentation'], 30, 45).flags.c_contiguous


def test_masks_of_a_stretched_image_are_drawn_of_stretched_polygons():
    turn = np.arange(0, 6.28, 0.1)
    circle = np.stack((15 + 9 * np.cos(turn), 20 + 9 * np.sin(turn)))
    spot = [[40.0, 5.0, 41.0, 5.0, 41.0, 6.0, 40.0, 6.0]]
    filled = np.zeros((30, 45), np.uint8)
    filled[4:9, 30:39] = 1
    rle = coco_mask.encode(np.asfortranarray(filled))
    instances = [
        dict(ann_id=0, segmentation=[circle.T.ravel().tolist()]),
        dict(ann_id=1, segmentation=dict(size=[30, 45], counts=rle['counts'].decode())),
        dict(ann_id=2, segmentation=spot),
    ]
    results = dict(
        instances=instances, targets=[[0], [1], [2], []], height=30, width=45, img_path='a.jpg',
        img_shape=(90, 90),
    )  # fmt: skip
    masks = LoadReferentMask(stretch=True)(results)['gt_seg_map'].transpose(2, 0, 1)
    assert masks.shape == (4, 90, 90) and results['seg_fields'] == ['gt_seg_map']
    y, x = np.mgrid[:90, :90] + 0.5
    disk = (x / 2 - 15) ** 2 + (y / 3 - 20) ** 2 < 81
    assert (masks[0] != disk).sum() < 0.03 * disk.sum()
    # finer than the drawn mask could be
    coarse = cv2.resize(decode_segmentation(instances[0]['segmentation'], 30, 45), (90, 90))
    assert (masks[0] != disk).sum() < (coarse != disk).sum() / 2
    np.testing.assert_array_equal(masks[1], filled.repeat(3, 0).repeat(2, 1))
    assert masks[2].sum() == 6 and masks[2, 15:18, 80:82].all() and not masks[3].any()
    # it may vanish where the image shrinks, but not as an annotation
    small = LoadReferentMask(stretch=True)(dict(results, targets=[[2]], img_shape=(3, 5)))
    assert small['gt_seg_map'].sum() <= 1
    line = dict(ann_id=8, segmentation=[[3.0, 3.0, 20.0, 3.0, 20.0, 3.0]])
    with pytest.raises(ValueError, match='annotation 8 of a.jpg: its mask is empty'):
        LoadReferentMask(stretch=True)(dict(results, instances=[line], targets=[[0]]))
