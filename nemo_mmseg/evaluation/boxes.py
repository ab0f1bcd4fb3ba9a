"""Boxes of predicted masks, and how well they fit."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torchvision.ops import nms

# As published with TRIS: overlap above which a box is dropped, and the share of the best
# confidence that a box must exceed.
OVERLAP = 0.05
LEAST_CONFIDENCE = 0.5


def published_boxes(mask: np.ndarray) -> np.ndarray:
    """Return the boxes of a mask as the code of TRIS (ICCV 2023) makes them.

    A rectangle around every contour, also of a hole; its confidence is the share of it that the
    mask covers. Then non-maximum suppression, which the published code gives ``x, y, width,
    height`` where it wants corners: so few overlapping boxes are found, and near the corner of the
    image some that do not overlap. Of the rest those remain whose confidence is above half of the
    best. A mask of nothing, and one of the whole image, have two empty boxes in the corner.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        ``(K, 5)`` float64: x1, y1, x2, y2 in pixels (x2 and y2 exclusive) and confidence, by
        falling confidence; K is at least 1.
    """
    if mask.all() or not mask.any():
        return np.array([[0.0, 0, 1, 1, 0]] * 2)
    pixels = mask.astype(np.uint8)
    contours, _ = cv2.findContours(pixels, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.float64)
    x, y, width, height = boxes.astype(np.int64).T
    sums = cv2.integral(pixels).astype(np.float64)
    right, low = x + width, y + height
    inside = sums[low, right] - sums[y, right] - sums[low, x] + sums[y, x]
    confidence = inside / (width * height)
    kept = nms(
        torch.from_numpy(boxes).float(), torch.from_numpy(confidence).float(), OVERLAP
    ).numpy()
    found = np.stack([x, y, right, low, confidence], axis=1)[kept].astype(np.float64)
    return found[found[:, 4] > LEAST_CONFIDENCE * found[0, 4]]


def plain_box(mask: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """Return one box of a mask: around the part of it that the network is surest of.

    Args:
        mask: ``(H, W)`` bool.
        point: Row and column of the largest response.

    Returns:
        x1, y1, x2, y2 (exclusive) ``(4,)`` float64 around the connected part (with diagonals) that
        holds the point, around the largest part if none does; zeros for an empty mask.
    """
    _, labels, parts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if len(parts) == 1:
        return np.zeros(4)
    label = labels[point] or 1 + int(parts[1:, cv2.CC_STAT_AREA].argmax())
    x, y, width, height = parts[label, :4].tolist()
    return np.array([x, y, x + width, y + height], dtype=np.float64)


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU ``(K, L)`` of boxes ``(K, 4)`` and others ``(L, 4)``, all x1, y1, x2, y2."""
    a, b = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = sides.clip(0).prod(-1)
    areas = [(one[..., 2:] - one[..., :2]).prod(-1) for one in (a, b)]
    union = areas[0] + areas[1] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def holds(boxes: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """Return which boxes ``(K, 4)`` hold a point (row, column), borders included, ``(K,)`` bool."""
    y, x = point
    x1, y1, x2, y2 = boxes.T
    return (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)
