"""Load images and masks. What cannot be decoded is an error that names file and annotation."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from nemo_mmseg.utils.images import read_image

from ..segmentation import decode_segmentation


@TRANSFORMS.register_module()
class LoadReferringImage(BaseTransform):
    """Read the image and compare its size with the annotated one.

    It has no options: :mod:`nemo_mmseg.utils.images` says how files are decoded.

    Required Keys:

    - img_path
    - height, width (optional)

    Added Keys:

    - img: ``(H, W, 3)`` uint8, BGR
    - img_shape, ori_shape
    """

    def transform(self, results: dict) -> dict:
        """Read the image."""
        image = read_image(results['img_path'], results.get('height'), results.get('width'))
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def _mask_of(
    instance: dict, height: int, width: int, path: str, size: tuple[int, int] | None
) -> np.ndarray:
    """Decode the mask of an instance; an error names the annotation."""
    segmentation, problem = instance['segmentation'], None
    try:
        mask = decode_segmentation(segmentation, height, width, size)
        # A small object may vanish by stretching; an annotation must not be empty.
        if not mask.any() and not decode_segmentation(segmentation, height, width).any():
            problem = 'its mask is empty'
    except ValueError as error:
        problem = str(error)
    if problem:
        raise ValueError(f'cannot decode annotation {instance["ann_id"]} of {path}: {problem}')
    return mask


def referent_masks(results: dict, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode the mask of each expression.

    Args:
        results: With ``instances``, ``targets``, ``height``, ``width``, ``img_path``.
        size: Height and width of the masks; None for those of the original image. See
            :func:`~nemo_mmseg.datasets.segmentation.decode_segmentation`.

    Returns:
        Masks ``(N, height, width)`` uint8: the union of an expression's targets, 0 for no target.

    Raises:
        ValueError: The mask of an annotation cannot be decoded or is empty.
    """
    shape = results['height'], results['width']
    decoded: dict[int, np.ndarray] = {}
    masks = []
    for targets in results['targets']:
        mask = None
        for target in targets:
            if target not in decoded:
                decoded[target] = _mask_of(
                    results['instances'][target], *shape, results['img_path'], size
                )
            mask = decoded[target] if mask is None else np.maximum(mask, decoded[target])
        masks.append(np.zeros(size or shape, np.uint8) if mask is None else mask)
    # Most samples have one mask, which needs no copy.
    return masks[0][None] if len(masks) == 1 else np.stack(masks)


def clean_masks(results: dict, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode the clean mask of each expression.

    Args:
        results: With ``clean_masks``, an RLE or None for each expression, ``height``, ``width``.
        size: See :func:`referent_masks`.

    Returns:
        Masks ``(N, height, width)`` uint8, 0 where there is none.
    """
    shape = results['height'], results['width']
    empty = np.zeros(size or shape, np.uint8)
    return np.stack(
        [
            empty if rle is None else decode_segmentation(rle, *shape, size)
            for rle in results['clean_masks']
        ]
    )


@TRANSFORMS.register_module()
class LoadReferentMask(BaseTransform):
    """Load the mask of each expression's targets.

    Before a resize, the mask is resized with the image (training). After it, the mask stays at the
    original size, at which predictions are compared with it (evaluation).

    Required Keys:

    - instances, targets, height, width, img_path
    - img_shape (with ``stretch``)

    Added Keys:

    - gt_seg_map: uint8, 1 on the referent; ``(H, W)`` for one expression, else ``(H, W, N)``,
      which mmcv's transforms resize and flip

    - gt_clean_seg_map: likewise, of items with ``clean_masks`` (``gt_overlay`` of the data set),
      0 for an expression without a clean mask
    - cleaned: which expressions have one, for items with ``clean_masks``

    Modified Keys:

    - seg_fields

    Args:
        stretch: Whether polygons are stretched to the size that the image has now, after a resize,
            and drawn there, as ReLA's data loader does. Defaults to False.
    """

    def __init__(self, stretch: bool = False) -> None:
        self.stretch = stretch

    def transform(self, results: dict) -> dict:
        """Decode the masks."""
        size = tuple(results['img_shape'][:2]) if self.stretch else None
        loaded = dict(gt_seg_map=referent_masks(results, size))
        if 'clean_masks' in results:
            loaded['gt_clean_seg_map'] = clean_masks(results, size)
            results['cleaned'] = [mask is not None for mask in results['clean_masks']]
        for key, masks in loaded.items():
            results[key] = masks[0] if len(masks) == 1 else masks.transpose(1, 2, 0)
            results.setdefault('seg_fields', []).append(key)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(stretch={self.stretch})'


@TRANSFORMS.register_module()
class LoadReferentBoxes(BaseTransform):
    """Load the boxes of each expression's targets, at the size of the original image.

    COCO's ``x, y, width, height`` are cut to whole numbers, as published with TRIS, and turned into
    corners.

    Required Keys:

    - instances, targets, img_path

    Added Keys:

    - gt_bboxes: for each expression a list of boxes ``[x1, y1, x2, y2]`` in pixels, of its targets
    """

    def transform(self, results: dict) -> dict:
        """Turn the annotated boxes into corners."""
        corners = [_corners(instance, results['img_path']) for instance in results['instances']]
        results['gt_bboxes'] = [[corners[i] for i in targets] for targets in results['targets']]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def _corners(instance: dict, path: str) -> list[int]:
    box = instance['bbox']
    if box is None or len(box) != 4:
        raise ValueError(f'annotation {instance["ann_id"]} of {path} has no box, but {box}')
    x, y, width, height = map(int, box)
    return [x, y, x + width, y + height]
