"""Sample a RefShapes scene: which objects, what they look like, where they lie."""

from dataclasses import asdict, dataclass, field

import numpy as np

from .draw import Patch, compose, draw_object, window
from .shapes import outline
from .vocabulary import CANVASES, CATEGORIES, COLOURS, SIZES, TEXTURES, second_colours

MIN_VISIBLE = 0.68  # share of an object that those before it leave visible
_TEXTURE_NAMES = list(TEXTURES)
_TEXTURE_SHARES = np.array(list(TEXTURES.values())) / sum(TEXTURES.values())


@dataclass
class SceneObject:
    """One object of a scene, as the scene graph keeps it.

    Attributes:
        category: A key of ``vocabulary.CATEGORIES``.
        colour: The main colour.
        texture: A key of ``vocabulary.TEXTURES``.
        second: The second colour, None for plain objects.
        size: ``'small'`` or ``'large'``.
        center: Centre (x, y) of the visible part's box, in pixels.
        bbox: Box (x, y, w, h) of the visible part, in pixels.
        visible: Visible share of the object.
        covers: Index of another object -> share of that object that this one hides.
    """

    category: str
    colour: str
    texture: str
    second: str | None
    size: str
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
    """

    width: int
    height: int
    objects: list[SceneObject]
    masks: list[np.ndarray]
    image: np.ndarray


def _draw_look(rng: np.random.Generator) -> dict:
    colour = str(rng.choice(list(COLOURS)))
    texture = str(rng.choice(_TEXTURE_NAMES, p=_TEXTURE_SHARES))
    second = None if texture == 'plain' else str(rng.choice(second_colours(colour)))
    size = 'small' if rng.random() < 0.54 else 'large'
    return dict(colour=colour, texture=texture, second=second, size=size)


def _change_look(look: dict, rng: np.random.Generator) -> dict:
    """Change one attribute of a look, which makes a hard distractor."""
    new = dict(look)
    fresh = _draw_look(rng)
    change = rng.choice(['colour', 'texture', 'second', 'size'])
    if change == 'size':
        new['size'] = 'large' if look['size'] == 'small' else 'small'
    elif change == 'second' and look['second'] is not None:
        new['second'] = str(rng.choice(second_colours(look['colour'])))
    elif change == 'texture':
        new['texture'] = fresh['texture']
        if new['texture'] == 'plain':
            new['second'] = None
        elif new['second'] is None:
            new['second'] = str(rng.choice(second_colours(new['colour'])))
    else:
        choices = list(COLOURS) if new['second'] is None else second_colours(new['second'])
        new['colour'] = str(rng.choice(choices))
    return new


def _draw_categories(split: str, rng: np.random.Generator) -> list[str]:
    """Draw the categories of a scene's objects, so that they have the split's distractors."""
    names = [str(c) for c in rng.permutation(list(CATEGORIES))]
    if split == 'testA':  # at most one distractor for anything
        pool = names + [n for n in names if rng.random() < 0.45]
        count = int(rng.integers(2, 10))
        chosen = pool[: len(names)]
        head = chosen[: max(1, count - int(rng.integers(0, count // 2 + 1)))]
        return (head + head[: count - len(head)])[:count]
    if split == 'testB':  # three or more distractors for every reference
        same = int(rng.integers(4, 7))
        count = int(rng.integers(same, 10))
    else:
        # As in RefCOCO, whose images hold two or more objects of the referent's category.
        same = int(rng.choice([1, 2, 3, 4, 5], p=[0.03, 0.32, 0.30, 0.21, 0.14]))
        count = int(rng.integers(max(2, same), 10))
    others = [str(rng.choice(names[1:])) for _ in range(count - same)]
    return [names[0]] * same + others


def _draw_looks(split: str, exact: float, rng: np.random.Generator) -> list[dict]:
    """Draw category and look of each object."""
    looks: list[dict] = []
    for category in _draw_categories(split, rng):
        same = [k for k in looks if k['category'] == category]
        look = _draw_look(rng)
        if same:
            draw = rng.random()
            model = same[int(rng.integers(len(same)))]
            if draw < exact:
                look = {k: model[k] for k in ('colour', 'texture', 'second', 'size')}
            elif draw < exact + 0.5:
                look = _change_look(model, rng)
        looks.append({**look, 'category': category})
    return looks


def _place(
    looks: list[dict], width: int, height: int, rng: np.random.Generator
) -> tuple[list[Patch], np.ndarray] | None:
    """Place the objects so that ``MIN_VISIBLE`` of each is visible.

    Each look gets ``area``, ``angle``, ``x`` and ``y``.

    Returns:
        The drawn objects, and for each pixel ``(height, width)`` the index of the object that it
        shows, -1 for none. None when the objects do not fit.
    """
    patches: list[Patch] = []
    owner = np.full((height, width), -1, np.int16)
    for look in looks:
        low, high = SIZES[look['size']]
        look['area'] = rng.uniform(low, high) * width * height
        turn = np.pi if look['category'] == 'arrow' else 0.3
        look['angle'] = rng.uniform(-turn, turn)
        reach = np.abs(np.hypot(*outline(look['category'])[0].T)).max() * np.sqrt(look['area'])
        for _ in range(40):
            if (
                patches and rng.random() < 0.22
            ):  # beside another object, so that overlaps are common
                other = looks[int(rng.integers(len(patches)))]
                direction = rng.uniform(0, 2 * np.pi)
                gap = 0.48 * (np.sqrt(look['area']) + np.sqrt(other['area']))
                gap *= rng.uniform(0.9, 1.3)
                look['x'] = other['x'] + gap * np.cos(direction)
                look['y'] = other['y'] + gap * np.sin(direction)
            else:
                look['x'] = rng.uniform(reach + 1, width - reach - 1)
                look['y'] = rng.uniform(reach + 1, height - reach - 1)
            if not (reach <= look['x'] <= width - reach and reach <= look['y'] <= height - reach):
                continue
            patch = draw_object(look, rng)
            here, there = window(patch, width, height)
            covered = owner[here][patch.mask[there]]
            hidden = np.bincount(covered[covered >= 0], minlength=len(patches))
            left = np.bincount(owner[owner >= 0], minlength=len(patches))
            if np.all(left - hidden >= MIN_VISIBLE * np.array([p.mask.sum() for p in patches])):
                break
        else:
            return None
        owner[here][patch.mask[there]] = len(patches)
        patches.append(patch)
    return patches, owner


def sample_scene(split: str, exact: float, rng: np.random.Generator) -> Scene:
    """Draw a scene.

    Args:
        split: ``train``, ``val``, ``testA`` or ``testB``. The last two bound the distractors.
        exact: Share (0 to 1) of the distractors that look exactly as another object.
        rng: Source of randomness.

    Returns:
        The scene.
    """
    width, height = CANVASES[int(rng.integers(len(CANVASES)))]
    placed = None
    while placed is None:
        looks = _draw_looks(split, exact, rng)
        looks = [looks[i] for i in rng.permutation(len(looks))]
        placed = _place(looks, width, height, rng)
    patches, owner = placed
    keys = ('category', 'colour', 'texture', 'second', 'size')
    objects = [SceneObject(**{k: look[k] for k in keys}) for look in looks]
    masks = [owner == i for i in range(len(objects))]
    for i, (obj, mask) in enumerate(zip(objects, masks)):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        w, h = int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y
        obj.bbox = (x, y, w, h)
        obj.center = (x + w / 2, y + h / 2)
        size = int(patches[i].mask.sum())
        obj.visible = round(float(mask.sum()) / size, 4)
        here, there = window(patches[i], width, height)
        whole = np.zeros((height, width), bool)
        whole[here] = patches[i].mask[there]
        for j in range(i + 1, len(patches)):
            over, part = window(patches[j], width, height)
            hidden = int((whole[over] & patches[j].mask[part]).sum())
            if hidden:
                objects[j].covers[i] = round(hidden / size, 4)
    return Scene(width, height, objects, masks, compose(patches, width, height, rng))
