"""Outlines of RefShapes' categories as polygons (x to the right, y down)."""

from functools import cache

import cv2
import numpy as np


def _polar(radii: np.ndarray, start: float = -np.pi / 2) -> np.ndarray:
    angles = start + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _circle(radius: float = 1.0, x: float = 0.0, y: float = 0.0, n: int = 48) -> np.ndarray:
    return _polar(np.full(n, radius)) + (x, y)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y + 2], 1) / 16


def _crescent() -> np.ndarray:
    # The outer arc is of the unit circle, the inner one of a circle further right. They meet at
    # the angles +-1.0 of the unit circle.
    meet = 1.0
    outer = np.linspace(meet, 2 * np.pi - meet, 40)
    shift = 0.55
    x, y = np.cos(meet) - shift, np.sin(meet)
    inner = np.linspace(2 * np.pi - np.arctan2(y, x), np.arctan2(y, x), 32)[1:-1]
    radius = np.hypot(x, y)
    points = np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], 1),
            np.stack([shift + radius * np.cos(inner), radius * np.sin(inner)], 1),
        ]
    )
    return points + (0.15, 0)


def _drop() -> np.ndarray:
    angles = np.linspace(-0.35, np.pi + 0.35, 36)
    body = np.stack([0.72 * np.cos(angles), 0.3 + 0.72 * np.sin(angles)], 1)
    return np.concatenate([body, [[0.0, -1.15]]])


def _flower() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return _polar(0.72 + 0.30 * np.cos(5 * t))


def _box(half: float) -> np.ndarray:
    return np.array([[-half, -half], [half, -half], [half, half], [-half, half]], float)


def _semicircle() -> np.ndarray:
    angles = np.linspace(np.pi, 2 * np.pi, 32)
    return np.stack([np.cos(angles), np.sin(angles) + 0.45], 1)


def _cross() -> np.ndarray:
    a, b = 0.32, 1.0
    corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
    corners += [(a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    return np.array(corners, float)


def _star() -> np.ndarray:
    return _polar(np.tile([1.0, 0.43], 5))


ARROW = [(-1, -0.26), (0.1, -0.26), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.26), (-1, 0.26)]
BOLT = [(0.15, -1.1), (-0.65, 0.18), (-0.08, 0.18), (-0.3, 1.1), (0.65, -0.3), (0.1, -0.3)]


@cache
def outline(category: str) -> tuple[np.ndarray, ...]:
    """Return the contours of a category: the outer polygon, and a second one if it has a hole.

    Args:
        category: A key of ``vocabulary.CATEGORIES``.

    Returns:
        Polygons of ``(K, 2)`` float points about the origin, scaled to a shape of area 1.
    """
    makers = {
        'circle': lambda: (_circle(),),
        'square': lambda: (_box(1.0),),
        'triangle': lambda: (np.array([(0, -1), (1, 0.75), (-1, 0.75)], float),),
        'star': lambda: (_star(),),
        'ring': lambda: (_circle(), _circle(0.52)),
        'cross': lambda: (_cross(),),
        'heart': lambda: (_heart(),),
        'diamond': lambda: (np.array([(0, -1.2), (0.72, 0), (0, 1.2), (-0.72, 0)], float),),
        'crescent': lambda: (_crescent(),),
        'arrow': lambda: (np.array(ARROW, float),),
        'drop': lambda: (_drop(),),
        'flower': lambda: (_flower(),),
        'bolt': lambda: (np.array(BOLT, float),),
        'frame': lambda: (_box(1.0), _box(0.55)),
        'semicircle': lambda: (_semicircle(),),
        'hexagon': lambda: (_polar(np.ones(6), 0.0),),
    }
    contours = makers[category]()
    outer = contours[0].astype(np.float32)
    area = cv2.contourArea(outer) - sum(cv2.contourArea(c.astype(np.float32)) for c in contours[1:])
    return tuple(c * area**-0.5 for c in contours)
