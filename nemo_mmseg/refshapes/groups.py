"""Expressions for RefShapes that describe several objects of the scene, or none.

As in ``expressions.py``, a word is used only when every reader would call it true of all targets
and no reader of another object; what describes nothing must fit no object for any reader.
"""

from __future__ import annotations

import numpy as np

from .describe import describe, fits, say
from .expressions import _AXES, _matching, _positions, _side_words, _unique_description
from .scene import Scene
from .vocabulary import CATEGORIES, COLOURS, SYMMETRIC, TEXTURES, second_colours

# Of the kinds of expressions about several objects, how often each is tried.
_KINDS = {'group': 0.45, 'side': 0.2, 'pair': 0.2, 'except': 0.15}
_NUMBERS = {2: ('two', 'both'), 3: ('three',), 4: ('four',), 5: ('five',), 6: ('six',)}
# How far an object of the kind must lie from the middle (share of the image) to be on a side.
_CLEAR_OF_THE_MIDDLE = 0.08


def _group_description(scene: Scene, rng: np.random.Generator) -> tuple[dict, list[int]] | None:
    """A description that several objects fit, the same ones for all readers, and these."""
    model = scene.objects[int(rng.integers(len(scene.objects)))]
    what = describe(model, rng, brief=rng.random() < 0.8)
    if any(what[key] for key in ('size', 'colour', 'texture')) and rng.random() < 0.25:
        what = {**what, 'category': None}  # "all red objects"
    found = _matching(scene, what)
    return (what, found) if len(found) > 1 and found == _matching(scene, what, 'all') else None


def _quantified(phrase: str, number: int, rng: np.random.Generator) -> str:
    """Put in front of a plural how many are meant, or that all are."""
    options = ['all ', 'all the ', 'the ', '']
    for word in _NUMBERS.get(number, ()):
        options += [f'the {word} ', f'the {word} '] if word != 'both' else ['both ']
    return options[int(rng.integers(len(options)))] + phrase


def group(scene: Scene, rng: np.random.Generator) -> tuple[tuple[int, ...], str, dict] | None:
    """All objects of a description: "the two red stars".

    Args:
        scene: The scene.
        rng: Source of randomness.

    Returns:
        Indexes of the targets, the expression and its meaning, or None when this draw is not clear.
    """
    drawn = _group_description(scene, rng)
    if drawn is None:
        return None
    what, found = drawn
    text = _quantified(say(what, rng, plural=True), len(found), rng)
    return tuple(found), text, {'kind': 'group', 'what': what}


def side(scene: Scene, rng: np.random.Generator) -> tuple[tuple[int, ...], str, dict] | None:
    """All objects of a description on one side of the image; see :func:`group`."""
    drawn = _group_description(scene, rng)
    if drawn is None:
        return None
    what, found = drawn
    name = str(rng.choice(list(_AXES)))
    axis, sign = _AXES[name]
    along = {i: (_positions(scene)[i, axis] - 0.5) * sign for i in found}
    there = [i for i in found if along[i] > 0]
    if len(there) < 2 or min(map(abs, along.values())) < _CLEAR_OF_THE_MIDDLE:
        return None
    phrase = _side_words(name, say(what, rng, plural=True), rng)
    meaning = {'kind': 'side', 'what': what, 'where': [name]}
    return tuple(there), _quantified(phrase, len(there), rng), meaning


def pair(scene: Scene, rng: np.random.Generator) -> tuple[tuple[int, ...], str, dict] | None:
    """Two objects named one by one: "the red star and the ring"; see :func:`group`."""
    one, two = rng.choice(len(scene.objects), 2, replace=False).tolist()
    first, second = (_unique_description(scene, i, rng) for i in (one, two))
    if first is None or second is None:
        return None
    text = f'the {say(first, rng)} and the {say(second, rng)}'
    return tuple(sorted((one, two))), text, {'kind': 'pair', 'what': first, 'other': second}


def group_except(
    scene: Scene, rng: np.random.Generator
) -> tuple[tuple[int, ...], str, dict] | None:
    """A group but for one: "all stars except the red star"; see :func:`group`."""
    drawn = _group_description(scene, rng)
    if drawn is None or len(drawn[1]) < 3:
        return None
    what, found = drawn
    out = int(rng.choice(found))
    other = _unique_description(scene, out, rng)
    if other is None:
        return None
    text = f'all {say(what, rng, plural=True)} except the {say(other, rng)}'
    meaning = {'kind': 'except', 'what': what, 'other': other}
    return tuple(i for i in found if i != out), text, meaning


_MAKERS = {'group': group, 'side': side, 'pair': pair, 'except': group_except}


def groups_for(
    scene: Scene, rng: np.random.Generator, sets: int, count: int = 2, tries: int = 60
) -> list[tuple[tuple[int, ...], list[tuple[str, dict]]]]:
    """Different expressions for sets of several objects.

    Args:
        scene: The scene.
        rng: Source of randomness.
        sets: How many sets of targets at most.
        count: How many expressions of one set at most.
        tries: How many draws; many are not clear.

    Returns:
        Pairs of targets (rising indexes) and their pairs of expression and meaning.
    """
    kinds, shares = zip(*_KINDS.items())
    found: dict[tuple[int, ...], dict[str, dict]] = {}
    for _ in range(tries):
        drawn = _MAKERS[str(rng.choice(kinds, p=shares))](scene, rng)
        if drawn is None:
            continue
        targets, text, meaning = drawn
        said = found.setdefault(targets, {}) if len(found) < sets else found.get(targets, {})
        if len(said) < count:
            said.setdefault(' '.join(text.split()), meaning)
    return [(targets, list(said.items())) for targets, said in found.items()]


def _altered(what: dict, rng: np.random.Generator) -> dict:
    """A description with one thing changed, as of something that might be there but is not."""
    said = [key for key in ('category', 'size', 'colour', 'second', 'texture') if what[key]]
    key = str(rng.choice(said))
    choices = {
        'category': list(CATEGORIES),
        'size': ['small', 'large'],
        'colour': second_colours(what['second']) if what['second'] else list(COLOURS),
        'second': second_colours(what['colour']) if what['colour'] else list(COLOURS),
        'texture': [t for t in TEXTURES if t != 'plain' or not what['second']],
    }[key]
    return {**what, key: str(rng.choice([c for c in choices if c != what[key]]))}


def _sayable(what: dict) -> bool:
    """Whether words can say all of it: the second colour needs a part that it paints."""
    texture = what['texture']
    if texture in SYMMETRIC and not what['colour']:
        return not what['second'] and texture != 'half'
    return texture not in (None, 'plain') or not what['second']


def nothing_for(
    scene: Scene, rng: np.random.Generator, count: int, tries: int = 20
) -> list[tuple[str, dict]]:
    """Expressions that describe nothing in the scene, but nearly something.

    Args:
        scene: The scene.
        rng: Source of randomness.
        count: How many.
        tries: How many draws; many fit an object after all.

    Returns:
        At most ``count`` pairs of expression and meaning.
    """
    found: dict[str, dict] = {}
    for _ in range(tries):
        if len(found) == count:
            break
        model = scene.objects[int(rng.integers(len(scene.objects)))]
        plural = rng.random() < 0.25
        what = _altered(describe(model, rng, brief=plural), rng)
        if not _sayable(what) or any(fits(what, thing) for thing in scene.objects):
            continue
        article = ['the ', 'all ', ''][int(rng.integers(3))] if plural else ''
        if not plural and rng.random() < 0.5:
            article = 'the '
        text = ' '.join((article + say(what, rng, plural)).split())
        found.setdefault(text, {'kind': 'nothing', 'what': what})
    return list(found.items())
