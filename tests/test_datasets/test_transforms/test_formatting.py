"""PackReferringInputs: planes of an image, masks, and what becomes metainfo."""

import numpy as np
import pytest
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.transforms.formatting import channels_first

IMAGE = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)


@pytest.mark.parametrize(
    'image',
    [IMAGE, IMAGE[:, ::-1], IMAGE[::-1, 2:5], IMAGE[..., ::-1], IMAGE[..., :1], IMAGE / 255],
    ids=['rows', 'mirrored', 'part', 'RGB', 'grey', 'float'],
)
def test_planes_equal_a_transposed_copy(image):
    planes = channels_first(image)
    assert planes.flags.c_contiguous and planes.dtype == image.dtype
    np.testing.assert_array_equal(planes, np.transpose(image, (2, 0, 1)))
    assert not np.shares_memory(planes, image)


def sample():
    return dict(
        img=IMAGE, gt_seg_map=np.ones((7, 9), np.uint8), expressions=['left cup'], sent_ids=[3],
        img_id=5, ori_shape=(7, 9), negative_expressions=['right cup'], unknown=1,
    )  # fmt: skip


def test_pack_keeps_uint8_and_the_metainfo():
    packed = TRANSFORMS.build(dict(type='PackReferringInputs'))(sample())
    assert packed['inputs'].shape == (3, 7, 9) and packed['inputs'].dtype.itemsize == 1
    assert packed['data_samples'].gt_sem_seg.data.shape == (1, 7, 9)
    meta = dict(image_id=5, expressions=['left cup'], sent_ids=[3], ori_shape=(7, 9))
    assert dict(packed['data_samples'].metainfo_items()) == meta


def test_extra_keys_are_added_to_the_usual_ones():
    pack = TRANSFORMS.build(dict(type='PackReferringInputs', extra_keys=['negative_expressions']))
    packed = pack(sample())['data_samples']
    assert packed.negative_expressions == ['right cup'] and packed.expressions == ['left cup']
    assert 'unknown' not in packed
