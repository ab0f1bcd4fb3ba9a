"""Masks as COCO's compressed run-length code (RLE), with ``counts`` as text: as JSON holds it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask


def encode_mask(mask: np.ndarray) -> dict:
    """Encode a mask.

    Args:
        mask: ``(H, W)`` of any type, 0 or 1.

    Returns:
        ``dict(size=[H, W], counts=str)``.
    """
    # COCO's masks are column-major. OpenCV transposes ten times as fast as NumPy.
    return json_rle(coco_mask.encode(cv2.transpose(np.asarray(mask, np.uint8)).T))


def json_rle(rle: dict) -> dict:
    """Return a compressed RLE of pycocotools, whose ``counts`` are bytes, as JSON holds it."""
    return dict(size=[int(side) for side in rle['size']], counts=rle['counts'].decode('ascii'))


def mask_fields(rle: dict) -> dict[str, Any]:
    """Return ``bbox``, COCO's ``[x, y, width, height]``, and ``area`` of a compressed RLE."""
    return dict(bbox=coco_mask.toBbox(rle).tolist(), area=int(coco_mask.area(rle)))
