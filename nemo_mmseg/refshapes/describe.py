"""Descriptions of appearance: which attributes to say, and how to say them.

A description is a dict with the keys ``category`` (None for "object"), ``size``, ``colour``,
``second`` and ``texture``. A value is None when it is not said.

A description has two readers. The generous one calls it true of an object whenever somebody might
(a colour word may name either colour). The strict one calls it true only if everybody would (the
word names the main colour, or one of two colours of equal standing). The generator asks the
generous reader about distractors and the strict one about targets.
"""

import numpy as np

from .scene import Scene, SceneObject
from .vocabulary import CATEGORIES, COLOUR_WORDS, HYPERNYMS, PLURALS, SIZE_WORDS, SYMMETRIC

# Attributes said together -> how often; for plain objects, and for those with a second colour.
_PLAIN_CHOICES = (
    (('size', 'colour', 'texture'), 0.5),
    (('colour', 'texture'), 0.22),
    (('size', 'colour'), 0.2),
    (('colour',), 0.08),
)
_TEXTURED_CHOICES = (
    (('size', 'colour', 'second', 'texture'), 0.42),
    (('colour', 'second', 'texture'), 0.34),
    (('size', 'colour', 'texture'), 0.12),
    (('colour', 'texture'), 0.06),
    (('size', 'second', 'texture'), 0.03),
    (('second', 'texture'), 0.02),
    (('size', 'texture'), 0.01),
)
_BRIEF_CHOICES = (((), 0.4), (('colour',), 0.3), (('size',), 0.15), (('texture',), 0.15))


def _choose(choices, rng: np.random.Generator) -> tuple[str, ...]:
    weights = np.array([w for _, w in choices])
    return choices[int(rng.choice(len(choices), p=weights / weights.sum()))][0]


def describe(obj: SceneObject, rng: np.random.Generator, brief: bool = False) -> dict:
    """Choose what to say about an object.

    Args:
        obj: The object.
        rng: Source of randomness.
        brief: Whether to say little (the category and at most one attribute), as expressions
            with a location do.

    Returns:
        A description, which other objects may fit too.
    """
    if brief:
        said = _choose(_BRIEF_CHOICES, rng)
    else:
        said = _choose(_PLAIN_CHOICES if obj.second is None else _TEXTURED_CHOICES, rng)
    what = {k: getattr(obj, k) if k in said else None for k in ('size', 'colour', 'texture')}
    what['second'] = obj.second if 'second' in said else None
    if obj.texture in SYMMETRIC:  # neither colour is the main one: say them in any order
        if what['colour'] and what['second']:
            if rng.random() < 0.5:
                what['colour'], what['second'] = what['second'], what['colour']
        elif what['second']:
            what['colour'], what['second'] = what['second'], None
    # Nobody says "the half star", nor "plain" before anything else is said.
    if what['texture'] == 'half' and not what['colour']:
        what['texture'] = None
    if brief and what['texture'] in ('half', 'plain'):
        what['texture'] = None
    what['category'] = obj.category
    enough = what['colour'] and what['texture'] and (what['size'] or what['second'])
    if not brief and enough and rng.random() < 0.03:
        what['category'] = None
    return what


def fits(what: dict, obj: SceneObject, strict: bool = False) -> bool:
    """Return whether a description is true of an object.

    Args:
        what: The description.
        obj: The object.
        strict: Whether the strict reader is asked, not the generous one.
    """
    if any(what[key] not in (None, getattr(obj, key)) for key in ('category', 'size', 'texture')):
        return False
    first, second = what['colour'], what['second']
    if strict and obj.texture not in SYMMETRIC:
        return first in (None, obj.colour) and second in (None, obj.second)
    return all(colour in (None, obj.colour, obj.second) for colour in (first, second))


def matching(scene: Scene, what: dict, strict: bool = False) -> list[int]:
    """Return the indexes of the objects that a description fits (see :func:`fits`)."""
    return [i for i, obj in enumerate(scene.objects) if fits(what, obj, strict)]


def describe_uniquely(
    scene: Scene, i: int, rng: np.random.Generator, tries: int = 6
) -> dict | None:
    """Return a description that fits an object alone, or None when no try gave one."""
    for _ in range(tries):
        what = describe(scene.objects[i], rng)
        if matching(scene, what) == [i]:
            return what
    return None


def say(what: dict, rng: np.random.Generator, plural: bool = False) -> str:
    """Put a description into words, without an article.

    Args:
        what: A description.
        rng: Chooses among synonyms and word orders.
        plural: Whether to name several objects.

    Returns:
        For example ``'large red star with white dots'``.
    """
    nouns = HYPERNYMS if what['category'] is None else CATEGORIES[what['category']]
    usual = len(nouns) == 1 or (what['category'] is not None and rng.random() < 0.75)
    noun = nouns[0] if usual else str(rng.choice(nouns))
    noun = PLURALS.get(noun, noun + 's') if plural else noun
    first, second = _colour(what['colour'], rng), _colour(what['second'], rng)
    size = '' if what['size'] is None else str(rng.choice(SIZE_WORDS[what['size']]))
    options = _options(what['texture'], first, second, noun, plural)
    return f'{size} {options[int(rng.integers(len(options)))]}'.strip()


def _colour(name: str | None, rng: np.random.Generator) -> str | None:
    words = COLOUR_WORDS.get(name)
    if words is None:
        return name
    return words[0] if rng.random() < 0.7 else words[1]


def _options(texture: str | None, c: str | None, d: str | None, noun: str, plural: bool) -> list:
    """Return the ways to say texture, colour ``c`` and second colour ``d`` of a noun."""
    if texture is None:
        return [f'{c} {noun}' if c else noun]
    if texture == 'plain':
        return [f'plain {c} {noun}', f'solid {c} {noun}'] if c else [f'plain {noun}']
    if texture == 'half':
        if c and d:
            return [f'half {c} half {d} {noun}', f'{noun} half {c} and half {d}']
        return [f'half {c} {noun}']
    tail = {'striped': 'stripes', 'checkered': 'checks', 'dotted': 'dots', 'outlined': 'outline'}
    tail = tail[texture]
    if texture in SYMMETRIC:
        if c and d:
            return [
                f'{c} and {d} {texture} {noun}',
                f'{texture} {noun} in {c} and {d}',
                f'{noun} with {c} and {d} {tail}',
            ]
        if c:
            return [f'{texture} {c} {noun}', f'{c} {texture} {noun}', f'{noun} with {c} {tail}']
        return [f'{texture} {noun}', f'{noun} with {tail}']
    if d:
        if texture == 'outlined':
            tail = f'{d} outlines' if plural else f'{"an" if d == "orange" else "a"} {d} outline'
        else:
            tail = f'{d} {tail}'
        # Twice, for the random numbers of a sample must not change.
        return [f'{c} {noun} with {tail}'] * 2 if c else [f'{noun} with {tail}']
    return [f'{texture} {c} {noun}', f'{c} {texture} {noun}'] if c else [f'{texture} {noun}']
