"""Pairs of image and expression for training the small CLIP, made in memory by RefShapes."""

import re
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from nemo_mmseg.refshapes import make_sample
from nemo_mmseg.refshapes.expressions import expressions_for
from refshapes_clip.words import CHANGEABLE

_CHANGEABLE = frozenset(word for group in CHANGEABLE for word in group)
# Appearance is what the demo's miner needs most.
_VARIANTS = ('refshapes+', 'refshapes+', 'refshapes', 'refshapesg')


@dataclass
class Pairs:
    """A scene as CLIP sees it.

    Attributes:
        image: ``(size, size, 3)`` uint8 RGB, the whole scene stretched to a square.
        boxes: ``(K, 4)`` float32: for each expression x0, y0, x1, y1 of its target in that image.
            They only say which expressions a window of the image keeps.
        kinds: ``(K,)`` int8, 0 appearance, 1 a location or a size, which a window of the image
            may not show, 2 relation.
        sentences: The K expressions, each true of the scene.
    """

    image: np.ndarray
    boxes: np.ndarray
    kinds: np.ndarray
    sentences: list[str]


def can_change(text: str) -> bool:
    """Return whether a sentence has a word to change: "the largest object" has none."""
    return not _CHANGEABLE.isdisjoint(re.findall('[a-z]+', text.lower()))


def make_pairs(seed: int, index: int, size: int = 256) -> Pairs:
    """Make a scene and expressions of each of its objects.

    Args:
        seed: Seed, another one than the data set's.
        index: Number of the scene.
        size: Side of the square image in pixels.

    Returns:
        The scene's image and expressions.
    """
    variant = _VARIANTS[index % len(_VARIANTS)]
    scene = make_sample(seed, variant, 'train', index).scene
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, 1]))
    # As the files on disk: through JPEG, then resized as open_clip does.
    _, jpeg = cv2.imencode('.jpg', scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]
    image = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    boxes, kinds, sentences = [], [], []
    scale = np.array([size / scene.width, size / scene.height] * 2, np.float32)
    for i, obj in enumerate(scene.objects):
        x, y, w, h = obj.bbox
        said = [
            (0 if meaning['what']['size'] is None else 1, text)
            for text, meaning in expressions_for(scene, i, 'refshapes+', rng, 3, 4)
        ]
        said += [(1, text) for text, _ in expressions_for(scene, i, 'refshapes', rng, 1, 1)]
        said += [(2, text) for text, _ in expressions_for(scene, i, 'refshapesg', rng, 1, 1)]
        for kind, text in said:
            if not can_change(text):
                continue
            boxes.append(np.array([x, y, x + w, y + h], np.float32) * scale)
            kinds.append(kind)
            sentences.append(text)
    return Pairs(
        np.asarray(image),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(kinds, np.int8),
        sentences,
    )
