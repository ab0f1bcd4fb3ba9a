"""Expressions for RefShapes: true of one object of the scene and of no other.

The generator is generous when it counts rivals and strict when it judges the target: a word is used
only when every reader would call it true of the target and no reader of another object.
"""

import numpy as np

from .describe import describe, fits, say
from .scene import Scene

# Margins as shares of the image's side.
CLEAR = 0.08  # how much further a leftmost object lies than the next
_AXES = {'left': (0, -1), 'right': (0, 1), 'top': (1, -1), 'bottom': (1, 1)}
_ORDINALS = ('second', 'third')


def _positions(scene: Scene) -> np.ndarray:
    centers = np.array([o.center for o in scene.objects], float)
    return centers / (scene.width, scene.height)


def _matching(scene: Scene, what: dict, readers: str = 'any') -> list[int]:
    return [i for i, o in enumerate(scene.objects) if fits(what, o, readers)]


def _unique_description(scene: Scene, i: int, rng, tries: int = 6) -> dict | None:
    for _ in range(tries):
        what = describe(scene.objects[i], rng)
        if _matching(scene, what) == [i]:
            return what
    return None


def appearance(scene: Scene, i: int, rng: np.random.Generator) -> tuple[str, dict] | None:
    """An expression about appearance alone.

    Args:
        scene: The scene.
        i: Index of the target.
        rng: Source of randomness.

    Returns:
        The expression and its meaning, or None when this draw is not unique.
    """
    what = _unique_description(scene, i, rng, tries=2)
    if what is None:
        return None
    article = 'the ' if rng.random() < 0.5 else ''
    return article + say(what, rng), {'kind': 'appearance', 'what': what}


def _side_words(side: str, phrase: str, rng) -> str:
    if side in ('left', 'right'):
        options = [f'{side} {phrase}', f'{phrase} on the {side}', f'{phrase} on {side}']
    else:
        options = [f'{side} {phrase}', f'{phrase} at the {side}', f'{phrase} at {side}']
    return options[int(rng.integers(3))]


def _extreme_words(side: str, phrase: str, rng) -> str:
    words = {
        'left': (f'leftmost {phrase}', f'{phrase} farthest to the left'),
        'right': (f'rightmost {phrase}', f'{phrase} farthest to the right'),
        'top': (f'topmost {phrase}', f'highest {phrase}'),
        'bottom': (f'lowest {phrase}', f'{phrase} closest to the bottom'),
    }[side]
    return words[int(rng.integers(2))]


def location(scene: Scene, i: int, rng: np.random.Generator) -> tuple[str, dict] | None:
    """An expression that names a place in the image.

    Args:
        scene: The scene.
        i: Index of the target.
        rng: Source of randomness.

    Returns:
        The expression and its meaning, or None when this draw is not true or not unique.
    """
    where = _positions(scene)
    what = describe(scene.objects[i], rng, brief=rng.random() < 0.75)
    alike = _matching(scene, what)
    others = [j for j in alike if j != i]
    article = 'the ' if rng.random() < 0.5 else ''
    kind = str(rng.choice(['side', 'side', 'corner', 'extreme', 'ordinal', 'middle']))
    meaning = {'kind': kind, 'what': what}
    if kind == 'middle':
        off = np.abs(where - 0.5).max(1)
        if off[i] > 0.16 or any(off[j] < 0.27 for j in others):
            return None
        phrase = say(what, rng)
        options = [f'{phrase} in the middle', f'middle {phrase}', f'{phrase} in the center']
        return article + options[int(rng.integers(3))], meaning
    if kind == 'corner':
        sides = ['top' if where[i][1] < 0.5 else 'bottom', 'left' if where[i][0] < 0.5 else 'right']
        signs = np.where(where[i] < 0.5, -1, 1)
        depth = ((where - 0.5) * signs).min(1)
        if depth[i] < 0.1 or any(depth[j] > -0.03 for j in others):
            return None
        phrase, corner = say(what, rng), ' '.join(sides)
        options = [f'{corner} {phrase}', f'{phrase} at the {corner}']
        options.append(f'{phrase} in the {corner} corner')
        return article + options[int(rng.integers(3))], {**meaning, 'where': sides}
    side = str(rng.choice(list(_AXES)))
    axis, sign = _AXES[side]
    along = where[:, axis] * sign
    ranked = sorted(alike, key=lambda j: -along[j])
    gaps = [along[a] - along[b] for a, b in zip(ranked, ranked[1:])]
    meaning['where'] = [side]
    if kind == 'ordinal':
        place = ranked.index(i)
        if not 1 <= place <= 2 or min(gaps[: place + 1]) < CLEAR * 0.75:
            return None
        meaning['place'] = place + 1
        return f'{article}{_ORDINALS[place - 1]} {say(what, rng)} from the {side}', meaning
    if ranked[0] != i or (gaps and gaps[0] < CLEAR):
        return None
    if kind == 'extreme':
        return (article + _extreme_words(side, say(what, rng), rng), meaning) if gaps else None
    # "the left star": it lies on the left, and no other star does.
    if abs(where[i][axis] - 0.5) < 0.06 or (where[i][axis] > 0.5) != (sign > 0):
        return None
    if any((where[j][axis] - 0.5) * sign > -0.02 for j in others):
        return None
    return article + _side_words(side, say(what, rng), rng), meaning


_BESIDE = {
    'left': ('to the left of', 'left of'),
    'right': ('to the right of', 'right of'),
    'top': ('above', 'over'),
    'bottom': ('below', 'under', 'beneath'),
}


def _offset(scene: Scene, side: str, a, b) -> tuple[float, bool]:
    """How far a lies from b toward a side (share of the image), and whether mainly so."""
    axis, sign = _AXES[side]
    delta = np.subtract(a, b)
    extent = (scene.width, scene.height)
    mainly = delta[axis] * sign >= 1.1 * abs(delta[1 - axis])
    return float(delta[axis] * sign / extent[axis]), bool(mainly)


def _beside(scene: Scene, i: int, what: dict, anchors: list[int], side: str) -> bool:
    """Whether i, and only i among what fits, lies on that side of all anchors."""
    centers = [o.center for o in scene.objects]
    middle = np.mean([centers[a] for a in anchors], 0)
    if any(_offset(scene, side, centers[i], centers[a])[0] < CLEAR for a in anchors):
        return False
    if not _offset(scene, side, centers[i], middle)[1]:
        return False
    rivals = [j for j in _matching(scene, what) if j != i and j not in anchors]
    return not any(
        all(_offset(scene, side, centers[j], centers[a])[0] > -0.02 for a in anchors)
        for j in rivals
    )


def along_segment(p, a, b) -> tuple[float, float]:
    """Where a point lies with respect to a segment.

    Args:
        p: The point (x, y).
        a: Start of the segment.
        b: End of the segment.

    Returns:
        Its foot along the segment (0 at a, 1 at b), and its distance from the line over the
        segment's length.
    """
    p, a, b = (np.asarray(v, float) for v in (p, a, b))
    length = float(np.hypot(*(b - a))) or 1e-6
    unit = (b - a) / length
    foot = float((p - a) @ unit) / length
    away = abs(float((p - a) @ np.array([-unit[1], unit[0]]))) / length
    return foot, away


def relation(scene: Scene, i: int, rng: np.random.Generator) -> tuple[str, dict] | None:
    """A long expression that relates the target to other objects.

    Args:
        scene: The scene.
        i: Index of the target.
        rng: Source of randomness.

    Returns:
        The expression and its meaning, or None when this draw is not true or not unique.
    """
    others = [j for j in range(len(scene.objects)) if j != i]
    what = describe(scene.objects[i], rng, brief=rng.random() < 0.5)
    centers = [o.center for o in scene.objects]
    kind = str(rng.choice(['beside', 'beside', 'beside', 'pair', 'between', 'nearest', 'overlap']))
    joint = ['', '', 'that is ', 'which is '][int(rng.integers(4))]
    head = f'{"the" if rng.random() < 0.8 else "a"} {say(what, rng)} {joint}'
    side = str(rng.choice(list(_AXES)))
    words = _BESIDE[side]
    words = words[int(rng.integers(len(words)))]
    meaning = {'kind': kind, 'what': what}
    rivals = [j for j in _matching(scene, what) if j != i]
    j = int(rng.choice(others))
    if kind == 'pair':
        target = describe(scene.objects[j], rng, brief=True)
        both = _matching(scene, target)
        if len(both) != 2 or i in both or both != _matching(scene, target, 'all'):
            return None
        if not _beside(scene, i, what, both, side):
            return None
        text = f'{head}{words} the two {say(target, rng, plural=True)}'
        return text, {**meaning, 'where': [side], 'anchors': [target]}
    anchor = _unique_description(scene, j, rng)
    if anchor is None:
        return None
    the_anchor = f'the {say(anchor, rng)}'
    if kind == 'beside':
        if not _beside(scene, i, what, [j], side):
            return None
        return f'{head}{words} {the_anchor}', {**meaning, 'where': [side], 'anchors': [anchor]}
    if kind == 'nearest':
        rivals = [k for k in rivals if k != j]
        distance = [float(np.hypot(*np.subtract(c, centers[j]))) for c in centers]
        if not rivals or min(distance[k] for k in rivals) < 1.3 * distance[i]:
            return None
        near = ['closest to', 'nearest to'][int(rng.integers(2))]
        return f'{head}{near} {the_anchor}', {**meaning, 'anchors': [anchor]}
    if kind == 'overlap':
        front = scene.objects[i].covers.get(j, 0), 'in front of'
        back = scene.objects[j].covers.get(i, 0), 'behind'
        share, words = front if rng.random() < 0.5 else back
        table = {'in front of': lambda k: scene.objects[k].covers.get(j, 0)}
        table['behind'] = lambda k: scene.objects[j].covers.get(k, 0)
        if share < 0.04 or any(table[words](k) > 0 for k in rivals if k != j):
            return None
        if words == 'behind' and rng.random() < 0.5:
            words = 'partly hidden by'
        return f'{head}{words} {the_anchor}', {**meaning, 'order': words, 'anchors': [anchor]}
    k = int(rng.choice(others))
    second = None if k == j else _unique_description(scene, k, rng)
    if second is None:
        return None
    foot, away = along_segment(centers[i], centers[j], centers[k])
    if not 0.25 <= foot <= 0.75 or away > 0.22:
        return None
    for r in rivals:
        foot, away = along_segment(centers[r], centers[j], centers[k])
        if r not in (j, k) and -0.05 < foot < 1.05 and away < 0.6:
            return None
    text = f'{head}between {the_anchor} and the {say(second, rng)}'
    return text, {**meaning, 'anchors': [anchor, second]}


def _makers(flavour: str):
    if flavour == 'refshapes':
        return (location, 0.75), (appearance, 0.25)
    if flavour == 'refshapes+':
        return ((appearance, 1.0),)
    return (relation, 0.9), (appearance, 0.1)


def expressions_for(
    scene: Scene, i: int, flavour: str, rng: np.random.Generator, count: int = 3, tries: int = 12
) -> list[tuple[str, dict]]:
    """Different true and unique expressions for an object.

    Args:
        scene: The scene.
        i: Index of the target.
        flavour: One of ``vocabulary.FLAVOURS``.
        rng: Source of randomness.
        count: How many expressions.
        tries: How many times to choose a kind of expression before giving up.

    Returns:
        ``count`` pairs of expression and meaning, or fewer when the object has not so many.
    """
    makers = _makers(flavour)
    kinds, shares = zip(*makers)
    found: dict[str, tuple[str, dict]] = {}
    for _ in range(tries):
        # A kind is tried several times: else the kinds that are rarely true would die out.
        maker = kinds[int(rng.choice(len(kinds), p=shares))]
        for _ in range(10):
            drawn = maker(scene, i, rng)
            if drawn is not None:
                text = ' '.join(drawn[0].split())
                found.setdefault(text.removeprefix('the ').removeprefix('a '), (text, drawn[1]))
                break
        if len(found) == count:
            break
    return list(found.values())
