"""Draw RefShapes: anti-aliased objects with textures on varied backgrounds."""

from dataclasses import dataclass

import cv2
import numpy as np

from .shapes import outline
from .vocabulary import CATEGORY_IDS, COLOURS

SUPERSAMPLE = 3


@dataclass
class Patch:
    """One drawn object, which may reach beyond the image.

    Attributes:
        x: Left column of the patch in the image.
        y: Top row of the patch in the image.
        alpha: ``(h, w)`` float32 coverage in [0, 1].
        mask: ``(h, w)`` bool, the pixels that count as the object.
        rgb: ``(h, w, 3)`` float32 colours.
    """

    x: int
    y: int
    alpha: np.ndarray
    mask: np.ndarray
    rgb: np.ndarray


def _draw_texture(
    texture: str, u: np.ndarray, v: np.ndarray, inside: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return where the second colour is, ``(h, w)`` float32 of 0 and 1, supersampled.

    ``u`` and ``v`` are pixel coordinates divided by the object's radius and turned with it.
    """
    if texture == 'striped':
        angle = rng.choice([0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4])
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        phase = (u * cos + v * sin) / 0.56 + rng.random()
        return (np.mod(phase, 1) < 0.5).astype(np.float32)
    if texture == 'checkered':
        cell = 0.42
        pu, pv = rng.random(2).tolist()
        even = (np.floor(u / cell + pu) + np.floor(v / cell + pv)) % 2
        return even.astype(np.float32)
    if texture == 'dotted':
        pitch = 0.52
        pu, pv = rng.random(2).tolist()
        row = np.floor(v / pitch + pv)
        du = np.mod(u / pitch + pu + 0.5 * (row % 2), 1) - 0.5
        dv = np.mod(v / pitch + pv, 1) - 0.5
        return (du**2 + dv**2 < 0.30**2).astype(np.float32)
    if texture == 'half':
        angle = rng.choice([0.0, np.pi / 2, np.pi, 3 * np.pi / 2])
        # Split at the median of the shape's points, so that both halves are as large.
        across = u * float(np.cos(angle)) + v * float(np.sin(angle))
        return (across > np.median(across[inside > 0])).astype(np.float32)
    if texture == 'outlined':
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
        radius = np.sqrt(float((inside > 0).sum()) / np.pi)
        return (depth < max(0.2 * radius, 2.6 * SUPERSAMPLE)).astype(np.float32)
    return np.zeros(u.shape, np.float32)


def draw_object(look: dict, rng: np.random.Generator) -> Patch:
    """Draw one object.

    Args:
        look: ``category``, ``colour``, ``texture``, ``second`` (or None), ``x``, ``y`` (centre in
            pixels), ``area`` (pixels) and ``angle`` (radians).
        rng: Source of the texture's phase and of the slight variation of colours.

    Returns:
        The patch.
    """
    scale = float(np.sqrt(look['area']))
    # Python's numbers, here and for textures: with NumPy's, the arrays below would be float64.
    cos, sin = float(np.cos(look['angle'])), float(np.sin(look['angle']))
    turn = np.array([[cos, sin], [-sin, cos]])
    contours = [(c @ turn) * scale + (look['x'], look['y']) for c in outline(look['category'])]
    x, y = (np.floor(contours[0].min(0)) - 1).astype(int)
    w, h = (np.ceil(contours[0].max(0)) + 2).astype(int) - (x, y)

    s = SUPERSAMPLE
    inside = np.zeros((h * s, w * s), np.uint8)
    fixed = [np.round(((c - (x, y)) * s - 0.5) * 16).astype(np.int32) for c in contours]
    cv2.fillPoly(inside, fixed, 255, shift=4)

    columns = (np.arange(0.5, w * s, dtype=np.float32) / s + float(x - look['x'])) / (scale * 0.6)
    rows = (np.arange(0.5, h * s, dtype=np.float32) / s + float(y - look['y'])) / (scale * 0.6)
    u = columns[None] * cos + rows[:, None] * sin
    v = -columns[None] * sin + rows[:, None] * cos
    share = _draw_texture(look['texture'], u, v, inside, rng)

    alpha = cv2.resize(inside, (int(w), int(h)), interpolation=cv2.INTER_AREA)
    alpha = alpha.astype(np.float32) / 255
    share = cv2.resize(share, (int(w), int(h)), interpolation=cv2.INTER_AREA)[..., None]
    first = np.array(COLOURS[look['colour']], np.float32) + rng.normal(0, 6, 3)
    second = np.array(COLOURS[look['second'] or look['colour']], np.float32)
    second = second + rng.normal(0, 6, 3)
    rgb = (first * (1 - share) + second * share).astype(np.float32)
    return Patch(int(x), int(y), alpha, alpha > 0.5, rgb)


def window(patch: Patch, width: int, height: int) -> tuple[tuple[slice, slice], ...]:
    """Find the part of a patch that lies in the image.

    Args:
        patch: A drawn object.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        Slices (rows, columns) of the image, and the same of the patch.
    """
    h, w = patch.mask.shape
    x0, y0 = max(patch.x, 0), max(patch.y, 0)
    x1, y1 = min(patch.x + w, width), min(patch.y + h, height)
    here = slice(y0, max(y1, y0)), slice(x0, max(x1, x0))
    there = (
        slice(y0 - patch.y, max(y1, y0) - patch.y),
        slice(x0 - patch.x, max(x1, x0) - patch.x),
    )
    return here, there


_BACKGROUNDS = ('flat', 'gradient', 'pattern', 'cloud')


def background(
    width: int, height: int, rng: np.random.Generator, category: str | None = None
) -> np.ndarray:
    """Draw a muted background: flat, gradient, pattern or cloud, all with some 1/f noise.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        rng: Source of randomness.
        category: Whose kind of background, and whose tint about which it varies. By default they
            are drawn at random.

    Returns:
        ``(height, width, 3)`` float32 in [45, 205].
    """

    def muted() -> np.ndarray:
        if category is None:
            return rng.uniform(88, 178) + rng.normal(0, 13, 3).clip(-26, 26)
        hue = 2 * np.pi * (CATEGORY_IDS[category] / len(CATEGORY_IDS) + np.arange(3) / 3)
        return rng.uniform(118, 148) + 26 * np.cos(hue) + rng.normal(0, 4, 3)

    if category is None:
        kind = rng.choice([*_BACKGROUNDS, 'cloud'])
    else:
        kind = _BACKGROUNDS[CATEGORY_IDS[category] % len(_BACKGROUNDS)]
    one, two = muted(), muted()
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None]
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    if kind == 'gradient':
        angle = rng.uniform(0, 2 * np.pi)
        share = (xs * np.cos(angle) + ys * np.sin(angle)) / 2.8 + 0.5
    elif kind == 'pattern':
        two = one + rng.normal(0, 9, 3)
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(0.08, 0.3)
        wave = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * np.pi / pitch)
        if rng.random() < 0.5:
            wave = wave * np.sin((xs * np.sin(angle) - ys * np.cos(angle)) * np.pi / pitch)
        share = wave * 0.5 + 0.5
    else:
        share = np.zeros((height, width), np.float32)
    strength = 30.0 if kind == 'cloud' else 7.0
    field = np.zeros((height, width), np.float32)
    for octave in range(1, 6):
        n = 2**octave + 1
        coarse = rng.normal(0, strength / octave**1.3, (n, n + 1)).astype(np.float32)
        field += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    share = np.asarray(share, np.float32)[..., None]
    tint = 1 + rng.normal(0, 0.12, 3)
    image = one * (1 - share) + two * share + field[..., None] * tint
    return np.clip(image, 45, 205).astype(np.float32)


def compose(
    patches: list[Patch],
    width: int,
    height: int,
    rng: np.random.Generator,
    category: str | None = None,
) -> np.ndarray:
    """Paint the objects, first to last, on a background and add sensor noise.

    Args:
        patches: The objects from back to front.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        rng: Source of the background and the noise.
        category: Whose background is drawn (see :func:`background`).

    Returns:
        ``(height, width, 3)`` uint8 RGB.
    """
    image = background(width, height, rng, category)
    for patch in patches:
        here, there = window(patch, width, height)
        alpha = patch.alpha[there][..., None]
        image[here] = image[here] * (1 - alpha) + patch.rgb[there] * alpha
    gain = rng.uniform(0.9, 1.08)
    noise = rng.normal(0, rng.uniform(1, 5), (height, width, 1)).astype(np.float32)
    return np.clip(image * gain + noise, 0, 255).astype(np.uint8)
