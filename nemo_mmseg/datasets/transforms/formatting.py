"""Pack a sample for MMSegmentation's data preprocessor."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample

META_KEYS = (
    'img_path',
    'ori_shape',
    'img_shape',
    'pad_shape',
    'scale_factor',
    'flip',
    'flip_direction',
    'warp_matrix',
    'expressions',
    'sent_ids',
    'ref_ids',
    'num_targets',
    'num_distractors',
    'gt_bboxes',
    'cleaned',
    'reviewed',
    'dataset_name',
    'mosaic',
    'mixed',
    'replaced',
)


def channels_first(image: np.ndarray) -> np.ndarray:
    """Copy an image ``(H, W, C)`` to ``(C, H, W)``."""
    if image.dtype != np.uint8:
        return np.ascontiguousarray(image.transpose(2, 0, 1))
    planes = np.empty((image.shape[2], *image.shape[:2]), np.uint8)
    # OpenCV writes straight into the planes, ten times as fast as a strided copy.
    cv2.split(image, list(planes))
    return planes


@TRANSFORMS.register_module()
class PackReferringInputs(BaseTransform):
    """Pack image, masks and expressions.

    Required Keys:

    - img
    - gt_seg_map, gt_clean_seg_map (optional)
    - img_id (optional), and what ``meta_keys`` and ``extra_keys`` name (optional)

    Returned Keys:

    - inputs: tensor ``(3, H, W)`` uint8
    - data_samples: ``SegDataSample`` with ``gt_sem_seg.data``, ``(N, H, W)`` uint8, 1 on the
      referent, and ``gt_clean_seg.data`` likewise. Its metainfo is ``image_id`` and the named
      keys that are present.

    Args:
        meta_keys: Keys of the sample that become metainfo. Defaults to what networks, protocols,
            metrics and visualizers of this package read.
        extra_keys: More of them. Defaults to none.
    """

    def __init__(
        self, meta_keys: Sequence[str] = META_KEYS, extra_keys: Sequence[str] = ()
    ) -> None:
        self.meta_keys = (*meta_keys, *extra_keys)

    def transform(self, results: dict) -> dict:
        """Pack the sample."""
        image = channels_first(results['img'])
        sample = SegDataSample()
        for key, field in (('gt_seg_map', 'gt_sem_seg'), ('gt_clean_seg_map', 'gt_clean_seg')):
            if key in results:
                masks = results[key]
                masks = masks[None] if masks.ndim == 2 else masks.transpose(2, 0, 1)
                data = torch.from_numpy(np.ascontiguousarray(masks))
                setattr(sample, field, PixelData(data=data))
        meta = {key: results[key] for key in self.meta_keys if key in results}
        if 'img_id' in results:
            meta['image_id'] = results['img_id']
        # set_metainfo would copy deeply, but nothing else holds these values.
        for key, value in meta.items():
            sample.set_field(value, key, field_type='metainfo')
        return dict(inputs=torch.from_numpy(image), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
