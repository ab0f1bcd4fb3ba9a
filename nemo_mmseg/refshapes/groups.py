"""Expressions for RefShapes that describe several objects of the scene, or none."""

import numpy as np

from .describe import describe, describe_uniquely, matching, say
from .expressions import Expression
from .places import AXES, CLEAR, positions, side_words
from .scene import Scene
from .vocabulary import CATEGORIES, COLOURS, SYMMETRIC, TEXTURES, second_colours

# Indexes of the targets, an expression and what it means.
Group = tuple[tuple[int, ...], str, dict]

_NUMBERS = {2: ('two', 'both'), 3: ('three',), 4: ('four',), 5: ('five',), 6: ('six',)}


def _group_description(
    scene: Scene, rng: np.random.Generator, sizes: bool = True
) -> tuple[dict, list[int]] | None:
    """Draw a description of which all readers say that the same several objects fit."""
    model = int(rng.integers(len(scene.objects)))
    what = describe(scene, model, rng, brief=rng.random() < 0.8, plural=True, sizes=sizes)
    if any(what[key] for key in ('size', 'colour', 'texture')) and rng.random() < 0.25:
        what = {**what, 'category': None}  # "all red objects"
    found = matching(scene, what)
    return (what, found) if len(found) > 1 and found == matching(scene, what, strict=True) else None


def _quantified(noun_phrase: str, number: int, rng: np.random.Generator) -> str:
    """Put a quantifier in front of a plural: "all", "the two", ..."""
    options = ['all ', 'all the ', 'the ', '']
    for word in _NUMBERS.get(number, ()):
        options += [f'the {word} ', f'the {word} '] if word != 'both' else ['both ']
    return options[int(rng.integers(len(options)))] + noun_phrase


def group(scene: Scene, rng: np.random.Generator) -> Group | None:
    """Name all objects of a description: "the two red stars".

    Args:
        scene: The scene.
        rng: Source of randomness.

    Returns:
        The group, or None when the one that was drawn is not clear.
    """
    drawn = _group_description(scene, rng)
    if drawn is None:
        return None
    what, found = drawn
    words = _quantified(say(what, rng, plural=True), len(found), rng)
    return tuple(found), words, {'kind': 'group', 'what': what}


def side(scene: Scene, rng: np.random.Generator) -> Group | None:
    """Name all objects of a description on one side of the image; see :func:`group`."""
    drawn = _group_description(scene, rng, sizes=False)
    if drawn is None:
        return None
    what, found = drawn
    name = str(rng.choice(list(AXES)))
    axis, sign = AXES[name]
    along = {i: (positions(scene)[i, axis] - 0.5) * sign for i in found}
    there = [i for i in found if along[i] > 0]
    if len(there) < 2 or min(map(abs, along.values())) < CLEAR:
        return None
    words = _quantified(side_words(name, say(what, rng, plural=True), rng), len(there), rng)
    return tuple(there), words, {'kind': 'side', 'what': what, 'where': [name]}


def pair(scene: Scene, rng: np.random.Generator) -> Group | None:
    """Name two objects one by one: "the red star and the ring"; see :func:`group`."""
    one, two = rng.choice(len(scene.objects), 2, replace=False).tolist()
    first, second = (describe_uniquely(scene, i, rng) for i in (one, two))
    if first is None or second is None:
        return None
    words = f'the {say(first, rng)} and the {say(second, rng)}'
    return tuple(sorted((one, two))), words, {'kind': 'pair', 'what': first, 'other': second}


def group_except(scene: Scene, rng: np.random.Generator) -> Group | None:
    """Name a group but for one: "all stars except the red star"; see :func:`group`."""
    drawn = _group_description(scene, rng)
    if drawn is None or len(drawn[1]) < 3:
        return None
    what, found = drawn
    out = int(rng.choice(found))
    other = describe_uniquely(scene, out, rng)
    if other is None:
        return None
    words = f'all {say(what, rng, plural=True)} except the {say(other, rng)}'
    meaning = {'kind': 'except', 'what': what, 'other': other}
    return tuple(i for i in found if i != out), words, meaning


# Kinds of expressions about several objects, with their shares.
_KINDS = {group: 0.45, side: 0.2, pair: 0.2, group_except: 0.15}


def group_expressions(
    scene: Scene, rng: np.random.Generator, sets: int, count: int = 2, tries: int = 60
) -> list[tuple[tuple[int, ...], list[Expression]]]:
    """Draw different expressions for sets of several objects.

    Args:
        scene: The scene.
        rng: Source of randomness.
        sets: Number of sets of targets at most.
        count: Number of expressions of a set at most.
        tries: Number of draws. Many are not clear.

    Returns:
        Pairs of targets (rising indexes) and their expressions.
    """
    kinds, shares = zip(*_KINDS.items())
    found: dict[tuple[int, ...], dict[str, dict]] = {}
    for _ in range(tries):
        drawn = kinds[int(rng.choice(len(kinds), p=shares))](scene, rng)
        if drawn is None:
            continue
        targets, words, meaning = drawn
        said = found.setdefault(targets, {}) if len(found) < sets else found.get(targets, {})
        if len(said) < count:
            said.setdefault(' '.join(words.split()), meaning)
    return [(targets, list(said.items())) for targets, said in found.items()]


def _altered(what: dict, rng: np.random.Generator) -> dict:
    """Change one attribute of a description, so that what it means might be there but is not."""
    # Not the size: where no object is "the larger red star", somebody may still mean one of them.
    said = [key for key in ('category', 'colour', 'second', 'texture') if what[key]]
    if not said:  # "the largest object"
        return what
    key = str(rng.choice(said))
    choices = {
        'category': list(CATEGORIES),
        'colour': second_colours(what['second']) if what['second'] else list(COLOURS),
        'second': second_colours(what['colour']) if what['colour'] else list(COLOURS),
        'texture': [t for t in TEXTURES if t != 'plain' or not what['second']],
    }[key]
    return {**what, key: str(rng.choice([c for c in choices if c != what[key]]))}


def _sayable(what: dict) -> bool:
    """Return whether words can say all of it: a second colour needs the part that it paints."""
    texture = what['texture']
    if texture in SYMMETRIC and not what['colour']:
        return not what['second'] and texture != 'half'
    return texture not in (None, 'plain') or not what['second']


def no_target_expressions(
    scene: Scene, rng: np.random.Generator, count: int, tries: int = 20
) -> list[Expression]:
    """Draw no-target expressions: each has one attribute wrong of what it nearly describes.

    Args:
        scene: The scene.
        rng: Source of randomness.
        count: Number of expressions.
        tries: Number of draws. Many fit an object after all.

    Returns:
        At most ``count`` expressions. No object fits them by any reader.
    """
    found: dict[str, dict] = {}
    for _ in range(tries):
        if len(found) == count:
            break
        model = int(rng.integers(len(scene.objects)))
        plural = rng.random() < 0.25
        what = _altered(describe(scene, model, rng, brief=plural, plural=plural), rng)
        if not _sayable(what) or matching(scene, what):
            continue
        article = ['the ', 'all ', ''][int(rng.integers(3))] if plural else ''
        if not plural and rng.random() < 0.5:
            article = 'the '
        words = ' '.join((article + say(what, rng, plural)).split())
        found.setdefault(words, {'kind': 'nothing', 'what': what})
    return list(found.items())
