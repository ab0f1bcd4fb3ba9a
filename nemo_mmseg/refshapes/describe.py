"""Descriptions of appearance: which attributes to say, and how to say them.

A description is a dict with the keys ``category`` (None for "object"), ``size``, ``colour``,
``second`` and ``texture``, each None when it is not said.
"""

import numpy as np

from .scene import SceneObject
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
        brief: Say little (the category, at most one attribute), as expressions with a location do.

    Returns:
        A description; not necessarily a unique one.
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


def fits(what: dict, obj: SceneObject, readers: str = 'any') -> bool:
    """Whether a description is true of an object.

    Args:
        what: A description.
        obj: The object.
        readers: ``'any'``: true for the most generous reader (a colour word may name either
            colour); ``'all'``: true for every reader (it names the main colour, or one of two
            colours of equal standing).

    Returns:
        True when it fits.
    """
    for key in ('category', 'size', 'texture'):
        if what[key] is not None and what[key] != getattr(obj, key):
            return False
    first, second = what['colour'], what['second']
    pair = {obj.colour, obj.second}
    if readers == 'any':
        return all(c in pair for c in (first, second) if c is not None)
    if obj.texture in SYMMETRIC:
        return all(c in pair for c in (first, second) if c is not None)
    return first in (None, obj.colour) and second in (None, obj.second)


def _plural(noun: str) -> str:
    return PLURALS.get(noun, noun + 's')


def say(what: dict, rng: np.random.Generator, plural: bool = False) -> str:
    """Put a description into words, without an article.

    Args:
        what: A description.
        rng: Chooses among synonyms and word orders.
        plural: Whether to name several such objects.

    Returns:
        A noun phrase, such as ``'large red star with white dots'``.
    """
    nouns = HYPERNYMS if what['category'] is None else CATEGORIES[what['category']]
    usual = len(nouns) == 1 or (what['category'] is not None and rng.random() < 0.75)
    noun = nouns[0] if usual else str(rng.choice(nouns))
    noun = _plural(noun) if plural else noun
    first, second = _colour(what['colour'], rng), _colour(what['second'], rng)
    size = '' if what['size'] is None else str(rng.choice(SIZE_WORDS[what['size']]))
    phrases = _phrases(what['texture'], first, second, noun, plural)
    return f'{size} {phrases[int(rng.integers(len(phrases)))]}'.strip()


def _colour(name: str | None, rng: np.random.Generator) -> str | None:
    words = COLOUR_WORDS.get(name)
    if words is None:
        return name
    return words[0] if rng.random() < 0.7 else words[1]


def _phrases(texture, c, d, noun: str, plural: bool) -> list[str]:
    """Ways to say texture, colour c and second colour d of a noun."""
    an_outline = 'outlines' if plural else 'outline'
    article = '' if plural else 'an ' if d == 'orange' else 'a '
    if texture is None:
        return [f'{c} {noun}' if c else noun]
    if texture == 'plain':
        return [f'plain {c} {noun}', f'solid {c} {noun}'] if c else [f'plain {noun}']
    if texture == 'half':
        if c and d:
            return [f'half {c} half {d} {noun}', f'{noun} half {c} and half {d}']
        return [f'half {c} {noun}']
    word, tail = {
        'striped': ('striped', 'stripes'),
        'checkered': ('checkered', 'checks'),
        'dotted': ('dotted', 'dots'),
        'outlined': ('outlined', an_outline),
    }[texture]
    lead = article if texture == 'outlined' else ''
    if texture in SYMMETRIC:
        if c and d:
            return [
                f'{c} and {d} {word} {noun}',
                f'{word} {noun} in {c} and {d}',
                f'{noun} with {c} and {d} {tail}',
            ]
        if c:
            return [f'{word} {c} {noun}', f'{c} {word} {noun}', f'{noun} with {c} {tail}']
        return [f'{word} {noun}', f'{noun} with {tail}']
    if c and d:
        return [f'{c} {noun} with {lead}{d} {tail}', f'{c} {noun} with {lead}{d} {tail}']
    if c:
        return [f'{word} {c} {noun}', f'{c} {word} {noun}']
    if d:
        return [f'{noun} with {lead}{d} {tail}']
    return [f'{word} {noun}']
