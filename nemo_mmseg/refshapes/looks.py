"""Draw which objects a RefShapes scene has, what they look like and how large they are."""

import numpy as np

from .vocabulary import (
    AREAS,
    CATEGORIES,
    COLOURS,
    COMPANIONS,
    DISTRACTORS,
    TEXTURES,
    second_colours,
)

# The zoom of a scene and the place of an object in the range of areas are numbers from 0 to 1, on a
# logarithmic scale. An object lies at most this far from the zoom of its scene.
_SPREAD = 0.25
_TEXTURE_NAMES = list(TEXTURES)
_TEXTURE_SHARES = np.array(list(TEXTURES.values())) / sum(TEXTURES.values())


def _draw_level(zoom: float, rng: np.random.Generator) -> float:
    """Draw an object's place in the range of areas.

    What would lie beyond an end of the range is mirrored at it: if the zooms are uniform, so are
    the levels of all objects together. Then areas would be log-uniform, if large objects found as
    much room as small ones.
    """
    level = abs(zoom + rng.uniform(-_SPREAD, _SPREAD))
    return level if level <= 1 else 2 - level


def area_share(level: float) -> float:
    """Return the area at a place (0 to 1) in the range of areas, as a share of the image."""
    least, greatest = AREAS
    return least * (greatest / least) ** level


def _draw_look(zoom: float, rng: np.random.Generator) -> dict:
    colour = str(rng.choice(list(COLOURS)))
    texture = str(rng.choice(_TEXTURE_NAMES, p=_TEXTURE_SHARES))
    second = None if texture == 'plain' else str(rng.choice(second_colours(colour)))
    return dict(colour=colour, texture=texture, second=second, level=_draw_level(zoom, rng))


def _change_look(look: dict, zoom: float, rng: np.random.Generator) -> dict:
    """Change one attribute of a look, which makes a hard distractor."""
    fresh = _draw_look(zoom, rng)
    new = {**look, 'level': fresh['level']}
    change = rng.choice(['colour', 'texture', 'second', 'size'])
    if change == 'size':
        levels = [_draw_level(zoom, rng) for _ in range(4)]
        new['level'] = max(levels, key=lambda level: abs(level - look['level']))
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


def _draw_categories(
    split: str, distractors: str, main: str | None, rng: np.random.Generator
) -> list[str]:
    """Draw the categories of a scene's objects, so that they have the split's distractors.

    With a main category the scene has that one, and its companions.
    """
    names = [str(c) for c in rng.permutation(list(CATEGORIES))]
    if split == 'testA':  # at most one distractor for anything
        pool = names + [n for n in names if rng.random() < 0.45]
        count = int(rng.integers(2, 10))
        chosen = pool[: len(names)]
        head = chosen[: max(1, count - int(rng.integers(0, count // 2 + 1)))]
        return (head + head[: count - len(head)])[:count]
    if split == 'testB':  # three or more distractors for every reference
        same = int(rng.integers(4, 7))
        least, most = same, 9
    else:
        shares, (least, most) = DISTRACTORS[distractors]
        same = int(rng.choice(list(shares), p=list(shares.values())))
    count = int(rng.integers(max(least, same), most + 1))
    pool = names[1:] if main is None else COMPANIONS[main]
    others = [str(rng.choice(pool)) for _ in range(count - same)]
    return [main or names[0]] * same + others


def draw_looks(
    split: str,
    exact: float,
    zoom: float,
    rng: np.random.Generator,
    distractors: str = 'normal',
    main: str | None = None,
) -> list[dict]:
    """Draw the objects of a scene.

    Args:
        split: One of ``vocabulary.SPLITS``.
        exact: Share (0 to 1) of the distractors with colours and texture of another object.
        zoom: Zoom of the scene, 0 to 1: where in the range of areas its objects lie.
        rng: Source of randomness.
        distractors: A key of ``vocabulary.DISTRACTORS``, which ``train`` and ``val`` follow.
        main: The category that the scene is about, whose companions the others are. By default
            all are drawn at random.

    Returns:
        For each object its ``category``, ``colour``, ``texture``, ``second`` (a colour or None)
        and ``level`` (see :func:`area_share`), in random order.
    """
    looks: list[dict] = []
    for category in _draw_categories(split, distractors, main, rng):
        same = [k for k in looks if k['category'] == category]
        look = _draw_look(zoom, rng)
        if same:
            draw = rng.random()
            model = same[int(rng.integers(len(same)))]
            if draw < exact:
                look = {**model, 'level': look['level']}
            elif draw < exact + 0.5:
                look = _change_look(model, zoom, rng)
        looks.append({**look, 'category': category})
    return [looks[i] for i in rng.permutation(len(looks))]
