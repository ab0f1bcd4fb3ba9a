"""The schema of ``refs(*).p``, ``grefs(*).json`` and ``instances.json``, as far as they are read.

Fields that no rule names are not read, so they may hold anything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .faults import Rule, is_text
from .images import is_image_name

# Characters of an expression or a name.
MAX_LENGTH = 1000
# A small pickle can name one list, text or annotation a million times. So what a split holds in all
# is limited: expressions and targets, those in shared lists, and the characters of expressions and
# numbers of targets.
MAX_ENTRIES = 2**24
MAX_SHARED = 2**20
MAX_VALUES = 2**28
# OpenCV warps no image with a longer side.
MAX_SIDE = 32_767

ID = Rule('a whole number from 0 to 2**63 - 1; ids must be whole numbers', (int,), 0, 2**63)
SIDE = Rule(f'a whole number of pixels from 1 to {MAX_SIDE}', (int,), 1, MAX_SIDE + 1)
TEXT = Rule(
    f'a text of at most {MAX_LENGTH} valid characters that is not blank',
    (str,),
    also=lambda value: len(value) <= MAX_LENGTH and is_text(value),
)
FILE_NAME = Rule(
    f'the path of a file inside the folder of the images, at most {MAX_LENGTH} characters',
    (str,),
    also=lambda value: len(value) <= MAX_LENGTH and is_text(value) and is_image_name(value),
)
LIST = Rule('a list', (list,))
NO_TARGET = Rule('-1', (int,), -1, 0)
NUMBER = Rule('a number', (int, float), -(2**63), 2**63)
AREA = Rule('a number of at least 0', (int, float), 0, 2**63, optional=True)
# Looked at, as the segmentation, where a reference names the annotation.
BOX = Rule(
    'four numbers',
    (list,),
    also=lambda value: len(value) == 4 and NUMBER.holds(*value),
    optional=True,
)
CROWD = Rule('0 or 1', (int, bool), 0, 2, optional=True)

IMAGE = dict(id=ID, file_name=FILE_NAME, height=SIDE, width=SIDE)
ANNOTATION = dict(id=ID, image_id=ID, category_id=ID, area=AREA, iscrowd=CROWD)
SPLIT = dict(
    split=Rule('the name of a split, a text', (str,), also=lambda value: len(value) <= MAX_LENGTH)
)
SOURCE = dict(
    source=Rule(
        "a text; 'zero' says that there is no target (Ref-ZOM)",
        (str,),
        also=lambda value: len(value) <= MAX_LENGTH,
    )
)
EXIST = Rule('true or false, or 1 or 0', (bool, int), 0, 2, optional=True)


def _are_targets(value: Any) -> bool:
    """Whether ``ann_id`` names annotations, or is -1 alone for none."""
    ids = [value] if type(value) is int else value
    return len(ids) > 0 and (ID.holds(*ids) or (len(ids) == 1 and NO_TARGET.holds(*ids)))


ONE_TARGET = replace(ID, allowed=f'{ID.allowed}; GRefCOCODataset reads lists of targets')
TARGETS = Rule(
    f'{ID.allowed}, or a list of such; only [-1] stands for no target',
    (int, list),
    also=_are_targets,
)
EXPRESSIONS = Rule('a list of at least one expression', (list,), also=len)


def reference_rules(generalized: bool) -> dict[str, Rule]:
    """Return the rules of a reference.

    Args:
        generalized: Whether it may have several targets or none, or no expression, as in gRefCOCO.
    """
    if generalized:
        return dict(ref_id=ID, image_id=ID, ann_id=TARGETS, sentences=LIST)
    return dict(ref_id=ID, image_id=ID, ann_id=ONE_TARGET, sentences=EXPRESSIONS)


def expression_rules(text_key: str, existence: bool = False) -> dict[str, Rule]:
    """Return the rules of an entry of ``sentences``.

    Args:
        text_key: The field that is read, ``'sent'`` or ``'raw'``.
        existence: Whether ``exist`` is read, too, as in R-RefCOCO. Defaults to False.
    """
    return {'sent_id': ID, text_key: TEXT, **(dict(exist=EXIST) if existence else {})}
