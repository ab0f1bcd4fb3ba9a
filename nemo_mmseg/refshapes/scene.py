"""Sample a RefShapes scene: which objects, what they look like, where they lie."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from .draw import Patch, compose, draw_object, window
from .looks import area_share, draw_looks
from .shapes import outline
from .vocabulary import CANVASES, CATEGORIES

MIN_VISIBLE = 0.68  # share of an object that those before it leave visible
_MAX_COVERED = 0.42  # share of an image: more objects than that hardly find room


@dataclass
class SceneObject:
    """One object of a scene, as the scene graph keeps it.

    Attributes:
        category: A key of ``vocabulary.CATEGORIES``.
        colour: The main colour.
        texture: A key of ``vocabulary.TEXTURES``.
        second: The second colour, None for plain objects.
        area: Number of visible pixels.
        center: Centre (x, y) of the visible part's box, in pixels.
        bbox: Box (x, y, w, h) of the visible part, in pixels.
        visible: Visible share of the object.
        covers: Index of another object -> share of that object that this one hides.
    """

    category: str
    colour: str
    texture: str
    second: str | None
    area: int = 0
    center: tuple[float, float] = (0.0, 0.0)
    bbox: tuple[int, int, int, int] = (0, 0, 0, 0)
    visible: float = 1.0
    covers: dict[int, float] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """Return the object as ``scenes.json`` keeps it: the keys of ``covers`` are str."""
        plain = asdict(self)
        plain['covers'] = {str(k): v for k, v in self.covers.items()}
        return plain


@dataclass
class Scene:
    """A drawn scene.

    Attributes:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        objects: Objects from back to front.
        masks: For each object, the ``(height, width)`` bool mask of its visible part.
        image: ``(height, width, 3)`` uint8 RGB.
        main: The category that background and companions tell, None where they tell nothing.
    """

    width: int
    height: int
    objects: list[SceneObject]
    masks: list[np.ndarray]
    image: np.ndarray
    main: str | None = None


def _place(
    looks: list[dict], width: int, height: int, rng: np.random.Generator
) -> tuple[list[Patch], np.ndarray] | None:
    """Place the objects so that ``MIN_VISIBLE`` of each is visible.

    Each look gets ``area`` (pixels), ``angle``, ``x`` and ``y``.

    Returns:
        The drawn objects, and for each pixel ``(height, width)`` the index of the object that it
        shows, -1 for none. None when the objects do not fit.
    """
    patches: list[Patch] = []
    owner = np.full((height, width), -1, np.int16)
    for look in looks:
        look['area'] = area_share(look['level']) * width * height
        turn = np.pi if look['category'] == 'arrow' else 0.3
        look['angle'] = rng.uniform(-turn, turn)
        # Drawn once, at a place between pixels, and moved by whole pixels.
        look['x'], look['y'] = rng.random(2)
        drawn = draw_object(look, rng)
        sizes = np.array([p.mask.sum() for p in patches])
        left = np.bincount(owner[owner >= 0], minlength=len(patches))
        for x, y in _spots(look, looks[: len(patches)], width, height, rng):
            patch = replace(drawn, x=drawn.x + x, y=drawn.y + y)
            here, there = window(patch, width, height)
            covered = owner[here][patch.mask[there]]
            hidden = np.bincount(covered[covered >= 0], minlength=len(patches))
            if np.all(left - hidden >= MIN_VISIBLE * sizes):
                break
        else:
            return None
        look['x'], look['y'] = look['x'] + x, look['y'] + y
        owner[here][patch.mask[there]] = len(patches)
        patches.append(patch)
    return patches, owner


def _spots(
    look: dict, others: list[dict], width: int, height: int, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Yield at most 40 places of whole pixels at which an object lies within the image."""
    reach = np.abs(np.hypot(*outline(look['category'])[0].T)).max() * np.sqrt(look['area']) + 1
    for _ in range(40):
        if others and rng.random() < 0.22:  # beside another object, so that overlaps are common
            other = others[int(rng.integers(len(others)))]
            direction = rng.uniform(0, 2 * np.pi)
            gap = 0.48 * (np.sqrt(look['area']) + np.sqrt(other['area']))
            gap *= rng.uniform(0.9, 1.3)
            x = other['x'] + gap * np.cos(direction)
            y = other['y'] + gap * np.sin(direction)
        else:
            x, y = rng.uniform(reach, width - reach), rng.uniform(reach, height - reach)
        if reach <= x <= width - reach and reach <= y <= height - reach:
            yield int(x), int(y)


def sample_scene(
    split: str,
    exact: float,
    rng: np.random.Generator,
    distractors: str = 'normal',
    context: float = 0.0,
) -> Scene:
    """Draw a scene.

    Args:
        split: ``train``, ``val``, ``testA`` or ``testB``. The last two bound the distractors.
        exact: Share (0 to 1) of the distractors with colours and texture of another object.
        rng: Source of randomness.
        distractors: A key of ``vocabulary.DISTRACTORS``, for ``train`` and ``val``.
        context: Probability that the scene is about one category, whose background and companions
            it shows.

    Returns:
        The scene.
    """
    width, height = CANVASES[int(rng.integers(len(CANVASES)))]
    zoom = rng.random()  # kept until a scene fits: where objects are large there are fewer
    main = str(rng.choice(list(CATEGORIES)))
    main = main if rng.random() < context else None
    placed = None
    while placed is None:
        looks = draw_looks(split, exact, zoom, rng, distractors, main)
        if sum(area_share(look['level']) for look in looks) < _MAX_COVERED:
            placed = _place(looks, width, height, rng)
    patches, owner = placed
    keys = ('category', 'colour', 'texture', 'second')
    objects = [SceneObject(**{k: look[k] for k in keys}) for look in looks]
    masks = [owner == i for i in range(len(objects))]
    for i, (obj, mask) in enumerate(zip(objects, masks)):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        w, h = int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y
        obj.bbox = (x, y, w, h)
        obj.center = (x + w / 2, y + h / 2)
        obj.area = int(mask.sum())
        size = int(patches[i].mask.sum())
        obj.visible = round(obj.area / size, 4)
        here, there = window(patches[i], width, height)
        whole = np.zeros((height, width), bool)
        whole[here] = patches[i].mask[there]
        for j in range(i + 1, len(patches)):
            over, part = window(patches[j], width, height)
            hidden = int((whole[over] & patches[j].mask[part]).sum())
            if hidden:
                objects[j].covers[i] = round(hidden / size, 4)
    image = compose(patches, width, height, rng, main)
    return Scene(width, height, objects, masks, image, main)
