"""What OpenCV turns round, against NumPy's slow and obvious way; metainfo without deep copies."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nemo_mmseg.datasets.transforms.formatting import PackReferringInputs, channels_first
from nemo_mmseg.datasets.transforms.loading import decode_segmentation, referent_masks

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (7, 9, 3), np.uint8)


@pytest.mark.parametrize(
    'image',
    [IMAGE, IMAGE[:, ::-1], IMAGE[::-1, 2:5], IMAGE[..., ::-1], IMAGE[..., :1], IMAGE / 255],
    ids=['rows', 'mirrored', 'part', 'RGB', 'grey', 'float'],
)
def test_planes(image):
    planes = channels_first(image)
    assert planes.flags.c_contiguous and planes.dtype == image.dtype
    np.testing.assert_array_equal(planes, np.transpose(image, (2, 0, 1)))
    assert not np.shares_memory(planes, image)


def polygons(count):
    return [(RNG.uniform(2, 28, (6, 2)) * (1.5, 1)).ravel().tolist() for _ in range(count)]


def slow_masks(results):
    """Zeros, and each target's mask painted over them."""
    shape = results['height'], results['width']
    masks = np.zeros((len(results['targets']), *shape), np.uint8)
    for mask, targets in zip(masks, results['targets']):
        for target in targets:
            rles = coco_mask.frPyObjects(results['instances'][target]['segmentation'], *shape)
            mask |= coco_mask.decode(rles).max(axis=2)
    return masks


@pytest.mark.parametrize('targets', [[[0]], [[1], [1], [0, 2]], [[]], [[2, 0, 1], []]], ids=str)
def test_masks(targets):
    instances = [dict(ann_id=i, segmentation=polygons(i + 1)) for i in range(3)]
    item = dict(instances=instances, targets=targets, height=30, width=45, img_path='a.jpg')
    masks = referent_masks(item)
    assert masks.flags.c_contiguous and masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, slow_masks(item))
    assert decode_segmentation(instances[0]['segmentation'], 30, 45).flags.c_contiguous


def test_metainfo():
    sample = dict(img=IMAGE, expressions=['left cup'], sent_ids=[3], img_id=5, other=1)
    packed = PackReferringInputs()(sample)['data_samples']
    assert dict(packed.metainfo_items()) == dict(expressions=['left cup'], sent_ids=[3], image_id=5)
