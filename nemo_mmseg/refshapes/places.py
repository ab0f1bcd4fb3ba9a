"""Where objects lie in a scene, and words for it."""

import numpy as np

from .scene import Scene

# Side of the image -> the axis of a position and the sign that lead there.
AXES = {'left': (0, -1), 'right': (0, 1), 'top': (1, -1), 'bottom': (1, 1)}
CLEAR = 0.08  # how much further toward a side is clearly so, as a share of the image


def positions(scene: Scene) -> np.ndarray:
    """Return the ``(N, 2)`` centres (x, y) of the objects as shares of the image."""
    return np.array([o.center for o in scene.objects], float) / (scene.width, scene.height)


def side_words(side: str, noun_phrase: str, rng: np.random.Generator) -> str:
    """Say that something lies on a side of the image: "left star", "star on the left"."""
    on = 'on' if side in ('left', 'right') else 'at'
    options = [f'{side} {noun_phrase}', f'{noun_phrase} {on} the {side}']
    options.append(f'{noun_phrase} {on} {side}')
    return options[int(rng.integers(3))]


def extreme_words(side: str, noun_phrase: str, rng: np.random.Generator) -> str:
    """Say that something lies farthest toward a side of the image."""
    options = {
        'left': (f'leftmost {noun_phrase}', f'{noun_phrase} farthest to the left'),
        'right': (f'rightmost {noun_phrase}', f'{noun_phrase} farthest to the right'),
        'top': (f'topmost {noun_phrase}', f'highest {noun_phrase}'),
        'bottom': (f'lowest {noun_phrase}', f'{noun_phrase} closest to the bottom'),
    }[side]
    return options[int(rng.integers(2))]


def offset(scene: Scene, side: str, a: int, b: int) -> float:
    """Return how far object ``a`` lies from ``b`` toward a side, as a share of the image."""
    axis, sign = AXES[side]
    delta = scene.objects[a].center[axis] - scene.objects[b].center[axis]
    return delta * sign / (scene.width, scene.height)[axis]


def lies_toward(scene: Scene, side: str, a: int, anchors: list[int]) -> bool:
    """Return whether object ``a`` clearly and mainly lies toward a side of others."""
    axis, sign = AXES[side]
    middle = np.mean([scene.objects[b].center for b in anchors], 0)
    delta = np.subtract(scene.objects[a].center, middle)
    mainly = delta[axis] * sign >= 1.1 * abs(delta[1 - axis])
    return bool(mainly) and all(offset(scene, side, a, b) >= CLEAR for b in anchors)


def along_segment(p, a, b) -> tuple[float, float]:
    """Locate a point with respect to a segment.

    Args:
        p: The point (x, y).
        a: Start of the segment.
        b: End of the segment.

    Returns:
        Its foot along the segment (0 at ``a``, 1 at ``b``), and its distance from the line over
        the length of the segment.
    """
    p, a, b = (np.asarray(v, float) for v in (p, a, b))
    length = float(np.hypot(*(b - a))) or 1e-6
    unit = (b - a) / length
    foot = float((p - a) @ unit) / length
    away = abs(float((p - a) @ np.array([-unit[1], unit[0]]))) / length
    return foot, away
