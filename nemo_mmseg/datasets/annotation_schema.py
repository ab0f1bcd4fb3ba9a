"""The schema of ``refs(*).p``, ``grefs(*).json`` and ``instances.json``, as far as they are read.

Fields that no rule names are not read, so they may hold anything.
"""

from __future__ import annotations

from typing import Any

from nemo_mmseg.utils.faults import Rule, is_finite, is_text, whole_number

# Expressions and targets of a split: a small pickle can name one list a million times.
MAX_ENTRIES = 2**24
# OpenCV warps no image with a longer side.
MAX_SIDE = 32_767

ID = whole_number(0, 2**63, 'from 0 to 2**63 - 1 (ids are numbers in both files)')
SIDE = whole_number(1, MAX_SIDE + 1, f'of pixels from 1 to {MAX_SIDE}')
TEXT = Rule('a text that is not blank, of valid characters', is_text)
FILE_NAME = Rule('the name of a file, a text', lambda value: is_text(value) and '\0' not in value)
LIST = Rule('a list', lambda value: type(value) in (list, tuple))
AREA = Rule('a number of at least 0', lambda value: is_finite(value) and value >= 0)
BOX = Rule('four numbers', lambda value: type(value) is list and len(value) == 4 and _finite(value))
CROWD = Rule('0 or 1', lambda value: type(value) in (int, bool) and value in (0, 1))

IMAGE = dict(id=ID, file_name=FILE_NAME, height=SIDE, width=SIDE)
ANNOTATION = dict(
    id=ID,
    image_id=ID,
    category_id=ID,
    bbox=BOX.or_missing(),
    area=AREA.or_missing(),
    iscrowd=CROWD.or_missing(),
)


def _finite(values: list) -> bool:
    return all(map(is_finite, values))


def _are_targets(value: Any) -> bool:
    """Whether ``ann_id`` is an annotation, several, or -1 alone for none."""
    ids = value if type(value) in (list, tuple) else [value]
    if len(ids) == 1 and type(ids[0]) is int and ids[0] == -1:
        return True
    return bool(ids) and all(map(ID.holds, ids))


ONE_TARGET = Rule(f'{ID.allowed}; GRefCOCODataset reads lists of targets', ID.holds)
TARGETS = Rule(f'{ID.allowed}, or a list of such; only [-1] stands for no target', _are_targets)


def reference_rules(generalized: bool) -> dict[str, Rule]:
    """Return the rules of a reference.

    Args:
        generalized: Whether it may have several targets or none, or no expression, as in gRefCOCO.
    """
    sentences = (
        LIST
        if generalized
        else Rule(
            'a list of at least one expression', lambda value: LIST.holds(value) and len(value) > 0
        )
    )
    return dict(
        ref_id=ID, image_id=ID, ann_id=TARGETS if generalized else ONE_TARGET, sentences=sentences
    )


def expression_rules(text_key: str) -> dict[str, Rule]:
    """Return the rules of an entry of ``sentences``.

    Args:
        text_key: The field that is read, ``'sent'`` or ``'raw'``.
    """
    return {'sent_id': ID, text_key: TEXT}


SPLIT = dict(split=Rule('the name of a split, a text', lambda value: type(value) is str))
