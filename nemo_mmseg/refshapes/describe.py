"""Descriptions of appearance: which attributes to say, and how to say them.

A description is a dict with the keys ``category`` (None for "object"), ``size``, ``colour``,
``second`` and ``texture``. A value is None when it is not said. A size compares an object with the
others that the rest of the description fits (see ``sizes.of_size``).

A description has two readers. The generous one calls it true of an object whenever somebody might
(a colour word may name either colour). The strict one calls it true only if everybody would (the
word names the main colour, or one of two colours of equal standing). The generator asks the
generous reader about distractors and the strict one about targets.
"""

import numpy as np

from .scene import Scene, SceneObject
from .sizes import of_size, sizes_of
from .vocabulary import CATEGORIES, COLOUR_WORDS, HYPERNYMS, PLURALS, SIZE_WORDS, SYMMETRIC

# Attributes said together -> how often; for plain objects, and for those with a second colour.
_PLAIN_CHOICES = ((('colour', 'texture'), 0.7), (('colour',), 0.3))
_TEXTURED_CHOICES = (
    (('colour', 'second', 'texture'), 0.7),
    (('colour', 'texture'), 0.22),
    (('second', 'texture'), 0.06),
    (('texture',), 0.02),
)
_BRIEF_CHOICES = (((), 0.45), (('colour',), 0.35), (('texture',), 0.2))
# A size is said of few attributes more: it has to tell the object from others that have them.
_SIZE_TRIED = 0.6
_SIZE_CHOICES = (
    ((), 0.15),
    (('colour',), 0.3),
    (('texture',), 0.2),
    (('colour', 'texture'), 0.15),
    (('colour', 'second', 'texture'), 0.2),
)


def _choose(choices, rng: np.random.Generator) -> tuple[str, ...]:
    draw = rng.random()
    for said, share in choices:
        draw -= share
        if draw < 0:
            return said
    return choices[-1][0]  # the shares are 1 together but for rounding


def describe(
    scene: Scene,
    i: int,
    rng: np.random.Generator,
    brief: bool = False,
    plural: bool = False,
    sizes: bool = True,
) -> dict:
    """Choose what to say about an object.

    Args:
        scene: The scene.
        i: Index of the object.
        rng: Source of randomness.
        brief: Whether to say little (the category and at most one attribute), as expressions
            with a location do.
        plural: Whether several objects are to be named.
        sizes: Whether a size may be said. It may not where a place is said of the same object:
            "the larger star on the left" may be the larger of all or of those on the left.

    Returns:
        A description, which other objects may fit too.
    """
    obj = scene.objects[i]
    if sizes and rng.random() < _SIZE_TRIED:
        what = _said(obj, _choose(_SIZE_CHOICES, rng), rng)
        if what['texture'] and not what['colour'] and what['texture'] in ('half', 'plain'):
            what['texture'] = None
        if not any(what[key] for key in ('colour', 'second', 'texture')) and rng.random() < 0.1:
            what['category'] = None
        alike = matching(scene, what)
        if len(alike) > 1 and alike == matching(scene, what, strict=True):
            fitting = sizes_of([o.area for o in scene.objects], alike, i, plural)
            if fitting:
                return {**what, 'size': str(rng.choice(fitting))}
    if brief:
        said = _choose(_BRIEF_CHOICES, rng)
    else:
        said = _choose(_PLAIN_CHOICES if obj.second is None else _TEXTURED_CHOICES, rng)
    what = _said(obj, said, rng)
    # Nobody says "the half star", nor "plain" before anything else is said.
    if what['texture'] == 'half' and not what['colour']:
        what['texture'] = None
    if brief and what['texture'] in ('half', 'plain'):
        what['texture'] = None
    enough = what['colour'] and what['texture'] and (what['second'] or what['texture'] == 'plain')
    if not brief and enough and rng.random() < 0.04:
        what['category'] = None
    return what


def _said(obj: SceneObject, said: tuple[str, ...], rng: np.random.Generator) -> dict:
    """Return the description of an object by its category and some attributes."""
    what: dict = {'category': obj.category, 'size': None}
    what.update(
        {k: getattr(obj, k) if k in said else None for k in ('colour', 'second', 'texture')}
    )
    if obj.texture in SYMMETRIC:  # neither colour is the main one: say them in any order
        if what['colour'] and what['second']:
            if rng.random() < 0.5:
                what['colour'], what['second'] = what['second'], what['colour']
        elif what['second']:
            what['colour'], what['second'] = what['second'], None
    return what


def _fits(what: dict, obj: SceneObject, strict: bool) -> bool:
    """Return whether a description but for its size is true of an object."""
    if what['category'] not in (None, obj.category) or what['texture'] not in (None, obj.texture):
        return False
    first, second = what['colour'], what['second']
    if strict and obj.texture not in SYMMETRIC:
        return first in (None, obj.colour) and second in (None, obj.second)
    either = (None, obj.colour, obj.second)
    return first in either and second in either


def matching(scene: Scene, what: dict, strict: bool = False) -> list[int]:
    """Return the indexes of the objects that a description is true of.

    Args:
        scene: The scene.
        what: The description.
        strict: Whether the strict reader is asked, not the generous one. It takes a size for true
            only where both agree on the objects that are compared.
    """
    found = [i for i, obj in enumerate(scene.objects) if _fits(what, obj, strict)]
    if what['size'] is None:
        return found
    if strict and found != matching(scene, {**what, 'size': None}):
        return []
    return of_size([o.area for o in scene.objects], found, what['size'], strict)


def describe_uniquely(
    scene: Scene, i: int, rng: np.random.Generator, tries: int = 6
) -> dict | None:
    """Return a description that fits an object alone, or None when no try gave one."""
    for _ in range(tries):
        what = describe(scene, i, rng)
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
        For example ``'larger red star with white dots'``.
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
        return [f'{c} {noun} with {tail}'] if c else [f'{noun} with {tail}']
    return [f'{texture} {c} {noun}', f'{c} {texture} {noun}'] if c else [f'{texture} {noun}']
