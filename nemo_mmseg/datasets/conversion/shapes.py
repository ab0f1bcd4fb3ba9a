"""Outlines that annotation tools draw, as COCO's polygons: ``[x0, y0, x1, y1, ...]`` in pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nemo_mmseg.utils.annotation_schema import NUMBER
from nemo_mmseg.utils.faults import Rule

CORNERS = 64  # of an ellipse


def _are_points(value: list[Any]) -> bool:
    return all(type(p) is list and len(p) == 2 and NUMBER.holds(*p) for p in value)


POINTS = Rule('a list of points [x, y]', (list,), also=_are_points)


def rectangle(x: float, y: float, width: float, height: float, degrees: float = 0.0) -> list[float]:
    """Return the outline of a rectangle, turned clockwise around its first corner."""
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    return _placed(corners, x, y, degrees)


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0
) -> list[float]:
    """Return the outline of an ellipse around ``x, y``, turned clockwise around its centre."""
    angles = np.linspace(0, 2 * math.pi, CORNERS, endpoint=False)
    corners = np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], axis=1)
    return _placed(corners, x, y, degrees)


def _placed(corners: np.ndarray, x: float, y: float, degrees: float) -> list[float]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Clockwise as one sees it: y points down.
    turned = corners @ np.array([[cosine, sine], [-sine, cosine]])
    return (turned + (x, y)).ravel().tolist()
