"""Which objects does an expression describe that may have several targets, or none?

The independent half of the proof of RefShapes' generalized variant, on top of ``truth.py``. It
shares nothing with the generator. An expression is proved when both readers find its targets, a
no-target expression when even the generous reader finds no object.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from refshapes_truth.truth import CATEGORY_OF, NOUNS, true_of

NUMBERS = {'both': 2, 'two': 2, 'three': 3, 'four': 4, 'five': 5, 'six': 6}
PLURALS = set(CATEGORY_OF) - {noun for nouns in NOUNS.values() for noun in nouns.split()}
_QUANTIFIER = re.compile(rf'^(?:(?:the|all|{"|".join(NUMBERS)}) )+')
_SIDE = re.compile(r'(?:\b(?:on|at) )?(?:\bthe )?\b(left|right|top|bottom)\b')
# A side begins at the middle of the image, give or take this share of it.
_BORDER = 0.05


def targets_of(
    text: str, objects: Sequence[dict], width: int, height: int, reader: str = 'generous'
) -> list[int]:
    """Find the objects of a scene that an expression describes.

    Besides what :func:`true_of` reads: "the red star and the ring", "all stars", "all small rings",
    "both rings on the left", "the three circles", "all stars except the red star".

    Args:
        text: The expression.
        objects: See :func:`true_of`.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        reader: ``'generous'`` (somebody might mean the object) or ``'strict'`` (everybody would).
            Where "the two stars" are three, or "the stars" one, the strict reader finds nothing.

    Returns:
        Their indexes, rising.

    Raises:
        ValueError: A word or the form of the expression is unknown.
    """
    text = ' '.join(text.lower().split())
    scene = list(objects), width, height
    if ' except ' in text:
        found = _except(*text.split(' except '), scene)
    elif ' and the ' in text and ' between ' not in text:
        found = _all_of(text.split(' and the '), scene)
    elif set(text.split()) & PLURALS and not re.search(
        r'\b(of|above|over|below|under|beneath)\b', text
    ):
        found = _group(text, scene)
    else:
        found = _readings(text, scene)
    return sorted(found[reader == 'strict'])


def _readings(text: str, scene: tuple) -> tuple[set, set]:
    """Return what the generous and the strict reader find."""
    return set(true_of(text, *scene)), set(true_of(text, *scene, 'strict'))


def _except(head: str, tail: str, scene: tuple) -> tuple[set, set]:
    generous, strict = _group(head, scene)
    out, out_surely = _readings(tail, scene)
    clear = len(out) == 1 and out == out_surely and out < strict
    return generous - out_surely, strict - out if clear else set()


def _all_of(parts: Sequence[str], scene: tuple) -> tuple[set, set]:
    readings = [_readings(part, scene) for part in parts]
    generous = set().union(*(one for one, _ in readings))
    strict = set().union(*(one for _, one in readings))
    each_is_one = all(len(one) == 1 and one == sure for one, sure in readings)
    return generous, strict if each_is_one and len(strict) == len(parts) else set()


def _group(text: str, scene: tuple) -> tuple[set, set]:
    quantifier = _QUANTIFIER.match(text)
    words = quantifier[0].split() if quantifier else []
    rest = text[quantifier.end() :] if quantifier else text
    side = _SIDE.search(rest)
    if side:
        rest = f'{rest[: side.start()]} {rest[side.end() :]}'
    generous, strict = _readings(rest, scene)
    if side:
        toward = {i: _toward(side[1], scene, i) for i in generous}
        generous = {i for i in generous if toward[i] > 0.5 - _BORDER}
        strict = {i for i in strict if toward[i] > 0.5 + _BORDER}
    numbers = {NUMBERS[word] for word in words if word in NUMBERS}
    as_said = len(strict) > 1 and numbers <= {len(strict)}
    return generous, strict if as_said else set()


def _toward(side: str, scene: tuple, index: int) -> float:
    """Return how far a centre lies toward a side, 0 to 1 over the image."""
    things, width, height = scene
    x, y = things[index]['center']
    return {'left': 1 - x / width, 'right': x / width, 'top': 1 - y / height}.get(side, y / height)
