"""Of which objects of a scene is an expression true? Read from its text alone.

This is the independent half of RefShapes' proof. It shares no table, no rule and no code with the
generator. It reads words from left to right and knows two readers. The *generous* one calls an
expression true whenever somebody might, the *strict* one only when everybody would. An expression
is proved when its target is the only object for both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

NOUNS = {
    'circle': 'circle disc',
    'square': 'square',
    'triangle': 'triangle',
    'star': 'star',
    'ring': 'ring donut',
    'cross': 'cross plus',
    'heart': 'heart',
    'diamond': 'diamond',
    'crescent': 'crescent moon',
    'arrow': 'arrow',
    'drop': 'drop teardrop',
    'flower': 'flower',
    'bolt': 'bolt lightning',
    'frame': 'frame',
    'semicircle': 'semicircle',
    'hexagon': 'hexagon',
    '*': 'object shape thing',
}
CATEGORY_OF = {noun: name for name, nouns in NOUNS.items() for noun in nouns.split()}
CATEGORY_OF.update({noun + 's': name for noun, name in list(CATEGORY_OF.items())})
CATEGORY_OF.update({'crosses': 'cross', 'pluses': 'cross'})
COLOUR_OF = {c: c for c in 'red orange yellow green cyan blue purple pink white black'.split()}
COLOUR_OF.update(violet='purple', turquoise='cyan')
# Words of sizes: whether they mean large objects, and with how many they compare.
SIZE_OF = {
    'small': (False, 'any'),
    'little': (False, 'any'),
    'large': (True, 'any'),
    'big': (True, 'any'),
    'smaller': (False, 'two'),
    'larger': (True, 'two'),
    'bigger': (True, 'two'),
    'smallest': (False, 'more'),
    'largest': (True, 'more'),
    'biggest': (True, 'more'),
}
CLEARLY = 1.7  # how many times as large is larger to everybody
HARDLY = 1.25  # how many times as large is larger to somebody
TEXTURE_OF = {
    'striped': 'striped',
    'stripes': 'striped',
    'checkered': 'checkered',
    'checks': 'checkered',
    'dotted': 'dotted',
    'dots': 'dotted',
    'outlined': 'outlined',
    'outline': 'outlined',
    'outlines': 'outlined',
    'plain': 'plain',
    'solid': 'plain',
    'half': 'half',
}
# Words that paint one part of an object: the colour before them is that part's.
PARTS = {'dots': 'dotted', 'outline': 'outlined', 'outlines': 'outlined'}
EQUAL = ('striped', 'checkered', 'half')
FILLERS = {'the', 'a', 'an', 'in', 'and', 'with'}

# Words of relations and what they mean.
RELATIONS = {
    'to the left of': 'left',
    'left of': 'left',
    'to the right of': 'right',
    'right of': 'right',
    'above': 'top',
    'over': 'top',
    'below': 'bottom',
    'under': 'bottom',
    'beneath': 'bottom',
    'closest to': 'near',
    'nearest to': 'near',
    'in front of': 'front',
    'partly hidden by': 'behind',
    'behind': 'behind',
    'between': 'between',
}
# Words of places. "extreme" compares objects, "side" may be read either way.
PLACES = {
    'farthest to the left': ('extreme', 'left'),
    'farthest to the right': ('extreme', 'right'),
    'closest to the bottom': ('extreme', 'bottom'),
    'leftmost': ('extreme', 'left'),
    'rightmost': ('extreme', 'right'),
    'topmost': ('extreme', 'top'),
    'highest': ('extreme', 'top'),
    'lowest': ('extreme', 'bottom'),
    'in the middle': ('middle', ''),
    'in the center': ('middle', ''),
    'middle': ('middle', ''),
}
ORDER = {'second': 1, 'third': 2}


@dataclass
class NounPhrase:
    """A noun phrase as it was read.

    Attributes:
        category: Category, ``'*'`` for any.
        sizes: What is said of the size.
        textures: Textures named.
        colours: Colours named with no part of their own.
        part_colours: Colours of the dots or the outline.
        count: How many objects are meant (two in "the two stars").
    """

    category: str = ''
    sizes: set = field(default_factory=set)
    textures: set = field(default_factory=set)
    colours: list = field(default_factory=list)
    part_colours: list = field(default_factory=list)
    count: int = 1


def _read_phrase(words: Sequence[str], text: str) -> NounPhrase:
    phrase = NounPhrase()
    pending: list[str] = []  # colours that wait for the word that says what they paint
    after_with = False
    for word in words:
        if word == 'two':
            phrase.count = 2
        elif word == 'with':
            phrase.colours += pending
            pending, after_with = [], True
        elif word in COLOUR_OF:
            pending.append(COLOUR_OF[word])
        elif word in SIZE_OF:
            phrase.sizes.add(SIZE_OF[word])
        elif word in CATEGORY_OF:
            if phrase.category:
                raise ValueError(f'two nouns in {" ".join(words)!r} of {text!r}')
            phrase.category = CATEGORY_OF[word]
        elif word in TEXTURE_OF:
            phrase.textures.add(TEXTURE_OF[word])
            if word in PARTS and after_with:
                phrase.part_colours += pending
                pending = []
        elif word not in FILLERS:
            raise ValueError(f'unknown word {word!r} in {text!r}')
    phrase.colours += pending
    if not phrase.category:
        raise ValueError(f'no noun in {" ".join(words)!r} of {text!r}')
    return phrase


def _is(phrase: NounPhrase, thing: dict, generous: bool) -> bool:
    """Return whether a phrase fits, its size left out."""
    if phrase.category not in ('*', thing['category']) or phrase.textures - {thing['texture']}:
        return False
    here = {thing['colour'], thing['second']} - {None}
    if generous or thing['texture'] in EQUAL:
        return set(phrase.colours + phrase.part_colours) <= here
    main_ok = all(c == thing['colour'] for c in phrase.colours)
    return main_ok and all(c == thing['second'] for c in phrase.part_colours)


def _meant(phrase: NounPhrase, things: list[dict]) -> tuple[set, set]:
    """Return what the generous and the strict reader take a phrase for, its size included.

    "The larger star" is one of exactly two stars and clearly larger, "the biggest star" one of
    three or more. "A small star" has a star beside it that is clearly larger.
    """
    alike = {i for i, t in enumerate(things) if _is(phrase, t, True)}
    strict = {i for i, t in enumerate(things) if _is(phrase, t, False)}
    if not phrase.sizes or not alike:
        return alike, strict
    ((large, compared),) = phrase.sizes

    def beats(i: int, j: int, times: float) -> bool:
        big, little = (i, j) if large else (j, i)
        return things[big]['area'] >= times * things[little]['area']

    if compared == 'any':
        generous = {i for i in alike if any(beats(i, j, HARDLY) for j in alike - {i})}
        surely = {i for i in alike if any(beats(i, j, CLEARLY) for j in alike - {i})}
    else:
        generous = {i for i in alike if not any(beats(j, i, CLEARLY) for j in alike - {i})}
        surely = {i for i in alike if all(beats(i, j, CLEARLY) for j in alike - {i})}
        if len(alike) < 2 or (len(alike) == 2) != (compared == 'two'):
            surely = set()
    # Where no size differs, nobody knows which object is meant, and somebody may mean any.
    return generous or alike, surely if alike == strict else set()


def _find(table: dict, text: str):
    """Find the first words of a table in the text, the longest: start, end, meaning."""
    hits = []
    for words, meaning in table.items():
        match = re.search(rf'\b{words}\b', text)
        if match:
            hits.append((match.start(), -match.end(), meaning))
    if not hits:
        return None
    start, end, meaning = min(hits)
    return start, -end, meaning


def _toward(side: str, thing: dict, width: int, height: int) -> float:
    """Return how far a centre lies toward a side, 0 to 1 over the image."""
    x, y = thing['center'][0] / width, thing['center'][1] / height
    return {'left': 1 - x, 'right': x, 'top': 1 - y, 'bottom': y}[side]


def _best(alike: list[int], score, margin: float, place: int = 0) -> tuple[set, set]:
    """Return the generous and the strict reading of "the k-th by score"."""
    ranked = sorted(alike, key=score, reverse=True)
    if len(ranked) <= place:
        return set(), set()
    value = score(ranked[place])
    generous = {i for i in alike if abs(score(i) - value) < 0.02}
    clear = all(abs(score(i) - value) >= margin for i in ranked[: place + 2] if i != ranked[place])
    return generous, {ranked[place]} if clear else set()


def _extract_place(text: str):
    """Cut the words of a place out of a text; return the rest, and (kind, where, order)."""
    match = re.search(r'\b(second|third)\b(.*) from the (left|right|top|bottom)$', text)
    if match:
        return match[2].strip(), ('order', match[3], ORDER[match[1]])
    found = _find(PLACES, text)
    if found:
        start, end, (kind, where) = found
        return f'{text[:start]} {text[end:]}'.strip(), (kind, where, 0)
    corner = r'(?:(?:in|at|on) )?(?:the )?\b(top|bottom) (left|right)\b(?: corner)?'
    match = re.search(corner, text)
    if match:
        rest = f'{text[: match.start()]} {text[match.end() :]}'
        return rest.strip(), ('corner', f'{match[1]} {match[2]}', 0)
    match = re.search(r'(?:\b(?:in|at|on) )?(?:\bthe )?\b(left|right|top|bottom)\b', text)
    if match:
        rest = f'{text[: match.start()]} {text[match.end() :]}'
        return rest.strip(), ('side', match[1], 0)
    return text, None


def _place_holds(place, things, alike, strict_alike, width, height) -> tuple[set, set]:
    kind, where, order = place

    def toward(side):
        return lambda i: _toward(side, things[i], width, height)

    if kind == 'middle':
        spots = {i: things[i]['center'] for i in alike}
        off = {i: max(abs(x / width - 0.5), abs(y / height - 0.5)) for i, (x, y) in spots.items()}
        nearest = min(alike, key=off.get, default=None)
        generous = {i for i in alike if off[i] < 0.25 or i == nearest}
        return generous, {i for i in strict_alike if off[i] < 0.17}
    if kind == 'corner':
        one, two = (toward(s) for s in where.split())
        generous = {i for i in alike if one(i) > 0.49 and two(i) > 0.49}
        return generous, {i for i in strict_alike if one(i) > 0.58 and two(i) > 0.58}
    score = toward(where)
    if kind in ('extreme', 'order'):
        generous, strict = _best(alike, score, 0.05, order)
        return generous, strict & strict_alike
    # "the left star": the one on the left, or the leftmost one.
    generous = {i for i in alike if score(i) > 0.5} | _best(alike, score, 0.05)[0]
    return generous, {i for i in strict_alike if score(i) > 0.55}


def _segment(p, a, b) -> tuple[float, float]:
    (px, py), (ax, ay), (bx, by) = p, a, b
    dx, dy = bx - ax, by - ay
    square = dx * dx + dy * dy or 1e-9
    along = ((px - ax) * dx + (py - ay) * dy) / square
    away = abs((px - ax) * dy - (py - ay) * dx) / square
    return along, away


def _relation_holds(name, things, alike, strict_alike, anchors, width, height):
    """Return the generous and the strict reading of a relation to anchors (indexes)."""
    candidates = [i for i in alike if i not in anchors]
    centers = [t['center'] for t in things]
    if name in ('left', 'right', 'top', 'bottom'):

        def ahead(i, a):
            return _toward(name, things[i], width, height) - _toward(name, things[a], width, height)

        def mainly(i):
            mx = sum(centers[a][0] for a in anchors) / len(anchors)
            my = sum(centers[a][1] for a in anchors) / len(anchors)
            dx, dy = abs(centers[i][0] - mx), abs(centers[i][1] - my)
            return dx > dy if name in ('left', 'right') else dy > dx

        generous = {i for i in candidates if all(ahead(i, a) > -0.01 for a in anchors)}
        strict = {i for i in candidates if all(ahead(i, a) > 0.06 for a in anchors) and mainly(i)}
    elif name == 'near':
        (anchor,) = anchors
        away = {i: math.dist(centers[i], centers[anchor]) for i in candidates}
        least = min(away.values(), default=0)
        generous = {i for i in candidates if away[i] < 1.2 * least + 1e-6}
        strict = {i for i in candidates if away[i] <= least} if len(generous) == 1 else set()
    elif name in ('front', 'behind'):
        (anchor,) = anchors

        def hidden(i):
            over, under = (i, anchor) if name == 'front' else (anchor, i)
            return things[over]['covers'].get(str(under), 0)

        generous = {i for i in candidates if hidden(i) > 0}
        strict = {i for i in candidates if hidden(i) >= 0.03}
    else:
        first, second = (centers[a] for a in anchors)
        spots = {i: _segment(centers[i], first, second) for i in candidates}
        generous = {i for i, (s, d) in spots.items() if 0 < s < 1 and d < 0.5}
        strict = {i for i, (s, d) in spots.items() if 0.2 < s < 0.8 and d < 0.25}
    return generous, strict & strict_alike


def _readings(text: str, things: list[dict], width: int, height: int) -> tuple[set, set]:
    whole = ' '.join(text.lower().split())
    relation = _find(RELATIONS, whole)
    # "closest to the bottom" is a place.
    if relation and whole[relation[0] :].startswith('closest to the bottom'):
        relation = None
    if relation is None:
        rest, place = _extract_place(whole)
        phrase = _read_phrase(rest.split(), whole)
        alike, strict = _meant(phrase, things)
        if place is None:
            return alike, strict
        strict = set() if phrase.sizes else strict  # as below
        return _place_holds(place, things, sorted(alike), strict, width, height)
    start, end, name = relation
    head = re.sub(r' (that|which) is$', '', whole[:start].rstrip())
    phrase = _read_phrase(head.split(), whole)
    # "The larger star on the left" is the larger one of all stars to one reader, of those on the
    # left to another: nothing is proved.
    alike, strict = _meant(phrase, things)
    strict = set() if phrase.sizes else strict
    tail = whole[end:].strip()
    parts = tail.split(' and the ') if name == 'between' else [tail]
    anchors = []
    for part in parts:
        anchor = _read_phrase(part.split(), whole)
        generous, exact = _meant(anchor, things)
        # "the two stars" must be exactly two, "the star" exactly one, for every reader.
        if generous != exact or len(generous) != anchor.count:
            return set(), set()
        anchors += sorted(generous)
    if len(set(anchors)) != len(anchors) or (name == 'between' and len(anchors) != 2):
        return set(), set()
    return _relation_holds(name, things, sorted(alike), strict, anchors, width, height)


def true_of(
    text: str, objects: Sequence[dict], width: int, height: int, reader: str = 'generous'
) -> list[int]:
    """Find the objects of a scene that an expression is true of.

    Args:
        text: The expression.
        objects: The scene's objects as in ``scenes.json``: dicts with ``category``, ``colour``,
            ``texture``, ``second``, ``area`` and ``center`` (both in pixels) and ``covers``.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        reader: ``'generous'`` (somebody might call it true) or ``'strict'`` (everybody would).

    Returns:
        Their indexes, rising.

    Raises:
        ValueError: A word or the form of the expression is unknown.
    """
    generous, strict = _readings(text, list(objects), width, height)
    return sorted(generous if reader == 'generous' else strict)
