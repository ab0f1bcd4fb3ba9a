"""Expressions for RefShapes that are true of one object of the scene and of no other."""

from collections.abc import Callable

import numpy as np

from .describe import describe, describe_uniquely, matching, say
from .places import (
    AXES,
    CLEAR,
    along_segment,
    extreme_words,
    lies_toward,
    offset,
    positions,
    side_words,
)
from .scene import Scene

# An expression, and what it means as ``scenes.json`` keeps it.
Expression = tuple[str, dict]


def appearance(scene: Scene, i: int, rng: np.random.Generator) -> Expression | None:
    """Draw an expression about appearance alone.

    Args:
        scene: The scene.
        i: Index of the target.
        rng: Source of randomness.

    Returns:
        The expression, or None when the one that was drawn is not unique.
    """
    what = describe_uniquely(scene, i, rng, tries=2)
    if what is None:
        return None
    article = 'the ' if rng.random() < 0.5 else ''
    return article + say(what, rng), {'kind': 'appearance', 'what': what}


def location(scene: Scene, i: int, rng: np.random.Generator) -> Expression | None:
    """Draw an expression that names a place in the image; see :func:`appearance`."""
    what = describe(scene, i, rng, brief=rng.random() < 0.75, sizes=False)
    article = 'the ' if rng.random() < 0.5 else ''
    kind = str(rng.choice(['side', 'side', 'corner', 'extreme', 'ordinal', 'middle']))
    drawn = _LOCATIONS[kind](scene, i, what, rng)
    if drawn is None:
        return None
    words, meaning = drawn
    return article + words, {'kind': kind, 'what': what, **meaning}


def _others(scene: Scene, i: int, what: dict) -> list[int]:
    """Return the distractors: other objects that fit the description of the target."""
    return [j for j in matching(scene, what) if j != i]


def _middle(scene: Scene, i: int, what: dict, rng: np.random.Generator) -> Expression | None:
    off = np.abs(positions(scene) - 0.5).max(1)
    if off[i] > 0.16 or any(off[j] < 0.27 for j in _others(scene, i, what)):
        return None
    noun = say(what, rng)
    options = [f'{noun} in the middle', f'middle {noun}', f'{noun} in the center']
    return options[int(rng.integers(3))], {}


def _corner(scene: Scene, i: int, what: dict, rng: np.random.Generator) -> Expression | None:
    where = positions(scene)
    sides = ['top' if where[i][1] < 0.5 else 'bottom', 'left' if where[i][0] < 0.5 else 'right']
    depth = ((where - 0.5) * np.where(where[i] < 0.5, -1, 1)).min(1)
    if depth[i] < 0.1 or any(depth[j] > -0.03 for j in _others(scene, i, what)):
        return None
    noun, corner = say(what, rng), ' '.join(sides)
    options = [f'{corner} {noun}', f'{noun} at the {corner}', f'{noun} in the {corner} corner']
    return options[int(rng.integers(3))], {'where': sides}


def _ranked(
    scene: Scene, what: dict, rng: np.random.Generator
) -> tuple[str, np.ndarray, list[int], list[float]]:
    """Draw a side of the image and rank what fits the description toward it.

    Returns:
        The side, how far ``(N,)`` each object lies toward it from the middle, the indexes in
        falling order, and the gap behind each.
    """
    side = str(rng.choice(list(AXES)))
    axis, sign = AXES[side]
    where = positions(scene)[:, axis]
    ranked = sorted(matching(scene, what), key=lambda j: -where[j] * sign)
    gaps = [where[a] * sign - where[b] * sign for a, b in zip(ranked, ranked[1:])]
    return side, (where - 0.5) * sign, ranked, gaps


def _ordinal(scene: Scene, i: int, what: dict, rng: np.random.Generator) -> Expression | None:
    side, _, ranked, gaps = _ranked(scene, what, rng)
    place = ranked.index(i)
    if not 1 <= place <= 2 or min(gaps[: place + 1]) < CLEAR * 0.75:
        return None
    words = f'{("second", "third")[place - 1]} {say(what, rng)} from the {side}'
    return words, {'where': [side], 'place': place + 1}


def _extreme(scene: Scene, i: int, what: dict, rng: np.random.Generator) -> Expression | None:
    side, _, ranked, gaps = _ranked(scene, what, rng)
    if ranked[0] != i or not gaps or gaps[0] < CLEAR:
        return None
    return extreme_words(side, say(what, rng), rng), {'where': [side]}


def _side(scene: Scene, i: int, what: dict, rng: np.random.Generator) -> Expression | None:
    # "The left star" lies on the left, and no other star does.
    side, toward, ranked, gaps = _ranked(scene, what, rng)
    if ranked[0] != i or (gaps and gaps[0] < CLEAR) or toward[i] < 0.06:
        return None
    if any(toward[j] > -0.02 for j in ranked[1:]):
        return None
    return side_words(side, say(what, rng), rng), {'where': [side]}


_LOCATIONS = {
    'middle': _middle,
    'corner': _corner,
    'ordinal': _ordinal,
    'extreme': _extreme,
    'side': _side,
}
_BESIDE = {
    'left': ('to the left of', 'left of'),
    'right': ('to the right of', 'right of'),
    'top': ('above', 'over'),
    'bottom': ('below', 'under', 'beneath'),
}


def relation(scene: Scene, i: int, rng: np.random.Generator) -> Expression | None:
    """Draw a long expression that relates the target to others; see :func:`appearance`."""
    others = [j for j in range(len(scene.objects)) if j != i]
    what = describe(scene, i, rng, brief=rng.random() < 0.5, sizes=False)
    kind = str(rng.choice(['beside', 'beside', 'beside', 'pair', 'between', 'nearest', 'overlap']))
    joint = ['', '', 'that is ', 'which is '][int(rng.integers(4))]
    head = f'{"the" if rng.random() < 0.8 else "a"} {say(what, rng)} {joint}'
    side = str(rng.choice(list(AXES)))
    words = _BESIDE[side][int(rng.integers(len(_BESIDE[side])))]
    j = int(rng.choice(others))
    meaning = {'kind': kind, 'what': what}
    if kind == 'pair':
        two = describe(scene, j, rng, brief=True, sizes=False)
        both = matching(scene, two)
        if len(both) != 2 or i in both or both != matching(scene, two, strict=True):
            return None
        if not _beside(scene, i, what, both, side):
            return None
        noun = say(two, rng, plural=True)
        return f'{head}{words} the two {noun}', {**meaning, 'where': [side], 'anchors': [two]}

    # Where the objects lie is asked first: it costs less than words for them.
    ends, more = [j], {}
    distractors = [k for k in _others(scene, i, what) if k != j]
    if kind == 'beside':
        holds, more = _beside(scene, i, what, [j], side), {'where': [side]}
    elif kind == 'nearest':
        holds, words = _nearest(scene, i, j, distractors), ['closest', 'nearest'][rng.integers(2)]
        words = f'{words} to'
    elif kind == 'overlap':
        words = _order(scene, i, j, distractors, rng)
        holds, more = words is not None, {'order': words}
    else:
        ends, words = [j, int(rng.choice(others))], 'between'
        holds = ends[1] != j and _between(scene, i, *ends, distractors)
    if not holds:
        return None
    anchors = [describe_uniquely(scene, end, rng) for end in ends]
    if None in anchors:
        return None
    tail = ' and '.join(f'the {say(anchor, rng)}' for anchor in anchors)
    return f'{head}{words} {tail}', {**meaning, **more, 'anchors': anchors}


def _beside(scene: Scene, i: int, what: dict, anchors: list[int], side: str) -> bool:
    """Return whether i, and only i of what fits, lies on that side of all anchors."""
    distractors = [j for j in _others(scene, i, what) if j not in anchors]
    return lies_toward(scene, side, i, anchors) and not any(
        all(offset(scene, side, j, a) > -0.02 for a in anchors) for j in distractors
    )


def _nearest(scene: Scene, i: int, anchor: int, distractors: list[int]) -> bool:
    """Return whether there are distractors and i lies clearly nearer to the anchor than they."""
    centers = [o.center for o in scene.objects]
    distance = [float(np.hypot(*np.subtract(c, centers[anchor]))) for c in centers]
    return bool(distractors) and min(distance[k] for k in distractors) >= 1.3 * distance[i]


def _order(
    scene: Scene, i: int, anchor: int, distractors: list[int], rng: np.random.Generator
) -> str | None:
    """Draw words for i before or behind the anchor; None when they do not fit i alone."""
    words = 'in front of' if rng.random() < 0.5 else 'behind'

    def hidden(k: int) -> float:
        over, under = (k, anchor) if words == 'in front of' else (anchor, k)
        return scene.objects[over].covers.get(under, 0)

    if hidden(i) < 0.04 or any(hidden(k) > 0 for k in distractors):
        return None
    return 'partly hidden by' if words == 'behind' and rng.random() < 0.5 else words


def _between(scene: Scene, i: int, a: int, b: int, distractors: list[int]) -> bool:
    """Return whether i lies clearly between two objects, and no distractor does by any reader."""
    centers = [o.center for o in scene.objects]
    foot, away = along_segment(centers[i], centers[a], centers[b])
    if not 0.25 <= foot <= 0.75 or away > 0.22:
        return False
    spots = [along_segment(centers[k], centers[a], centers[b]) for k in distractors if k != b]
    return not any(-0.05 < foot < 1.05 and away < 0.6 for foot, away in spots)


# Variant -> kinds of expressions with their shares.
_KINDS: dict[str, dict[Callable, float]] = {
    'refshapes': {location: 0.75, appearance: 0.25},
    'refshapes+': {appearance: 1.0},
    'refshapesg': {relation: 0.9, appearance: 0.1},
}


def expressions_for(
    scene: Scene, i: int, variant: str, rng: np.random.Generator, count: int = 3, tries: int = 12
) -> list[Expression]:
    """Draw different expressions for an object.

    Args:
        scene: The scene.
        i: Index of the target.
        variant: One of ``vocabulary.VARIANTS`` with one target per expression.
        rng: Source of randomness.
        count: Number of expressions.
        tries: How many times a kind of expression is chosen at most.

    Returns:
        ``count`` expressions, or fewer when too few were found.
    """
    kinds, shares = zip(*_KINDS[variant].items())
    found: dict[str, Expression] = {}
    for _ in range(tries):
        draw = kinds[int(rng.choice(len(kinds), p=shares))]
        # Try a kind several times: else the kinds that are rarely true would die out.
        for _ in range(10):
            drawn = draw(scene, i, rng)
            if drawn is not None:
                words = ' '.join(drawn[0].split())
                found.setdefault(words.removeprefix('the ').removeprefix('a '), (words, drawn[1]))
                break
        if len(found) == count:
            break
    return list(found.values())
