"""Predicted masks as files and as records for JSON."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nemo_mmseg.utils.atomic_write import atomic_write, write_text
from nemo_mmseg.utils.rle import encode_mask


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a mask by its nearest pixels.

    Args:
        mask: ``(h, w)`` bool.
        shape: Height and width of the result.

    Returns:
        ``(height, width)`` bool; the mask itself if it has that size.
    """
    if mask.shape == tuple(shape):
        return mask
    size = (int(shape[1]), int(shape[0]))
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0


def describe_mask(mask: np.ndarray) -> dict:
    """Describe a mask ``(H, W)`` bool for JSON.

    Returns:
        ``area`` (pixels), ``bbox`` (``[x, y, width, height]`` in pixels; None for an empty mask)
        and ``rle``.
    """
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = None
    if rows.size:
        left, top = int(cols[0]), int(rows[0])
        box = [left, top, int(cols[-1]) - left + 1, int(rows[-1]) - top + 1]
    return dict(area=int(mask.sum()), bbox=box, rle=encode_mask(mask))


def mask_scores(masks: Tensor, probabilities: Tensor) -> list[float]:
    """Average the foreground probability over each mask, 0..1; 0 for an empty mask.

    This runs on the masks' device, so that no map of probabilities leaves it.

    Args:
        masks: ``(N, H, W)`` bool.
        probabilities: ``(N, H, W)``, 0..1, on the same device.
    """
    inside = probabilities.masked_fill(~masks, 0).flatten(1).sum(1, dtype=torch.float64)
    return (inside / masks.flatten(1).sum(1).clamp(min=1)).tolist()


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write a PNG, under another name first, so that no half-written file is ever seen.

    Args:
        path: File to write; its folder is made.
        image: A mask ``(H, W)`` bool, written as 1-bit black and white, or ``(H, W, 3)`` uint8 RGB.
    """
    with atomic_write(path) as part:
        Image.fromarray(image).save(part, format='PNG')


def write_json(path: str | os.PathLike, content: object) -> None:
    """Write JSON, under another name first, see :func:`write_image`."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + '\n')


def write_csv(path: str | os.PathLike, rows: Sequence[dict]) -> None:
    """Write a table, under another name first, see :func:`write_image`.

    Args:
        path: File to write; its folder is made.
        rows: The lines, at least one, all with the same keys, which become the header. Values that
            are nan are left empty.
    """
    with atomic_write(path) as part, part.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: '' if value != value else value for k, value in row.items()})
