"""Masks of referents, against zeros with each target painted over them."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.datasets.transforms.loading import referent_masks

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
