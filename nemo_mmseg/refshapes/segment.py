"""Masks as COCO writes them: polygons, compressed and uncompressed run lengths."""

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from nemo_mmseg.utils.rle import encode_mask

_UP = 4  # contours are traced at this scale, so that polygons follow the pixels


def _polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Return the polygons of a mask, or None when it has a hole."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y, x = int(rows[0]), int(columns[0])
    crop = mask[y : rows[-1] + 1, x : columns[-1] + 1].astype(np.uint8)
    large = cv2.copyMakeBorder(crop.repeat(_UP, 0).repeat(_UP, 1), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    contours, tree = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if any(tree[0][:, 3] >= 0):
        return None
    polygons = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.55 * _UP, True)[:, 0]
        if len(points) < 3 or cv2.contourArea(contour) < 4 * _UP * _UP:
            continue
        points = (points - 0.5) / _UP + (x, y)
        polygons.append(np.round(points, 2).ravel().tolist())
    return polygons or None


def _counts(mask: np.ndarray) -> list[int]:
    flat = mask.ravel(order='F').astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *counts] if flat[0] else counts


def to_coco(mask: np.ndarray, uncompressed: bool = False) -> dict:
    """Return what a COCO annotation says of a mask.

    Args:
        mask: ``(H, W)`` bool, not empty.
        uncompressed: Whether to write plain run lengths. By default a mask with a hole is written
            as compressed run lengths, another one as polygons.

    Returns:
        ``segmentation``, and ``area`` and ``bbox`` of the segmentation as written, as in COCO.
    """
    height, width = mask.shape
    exact = encode_mask(mask)
    polygons = None if uncompressed else _polygons(mask)
    if uncompressed:
        rle, segmentation = exact, {'size': [height, width], 'counts': _counts(mask)}
    elif polygons is None:
        rle = segmentation = exact
    else:
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        segmentation = polygons
    return {
        'segmentation': segmentation,
        'area': float(coco_mask.area(rle)),
        'bbox': [float(v) for v in coco_mask.toBbox(rle)],
    }
