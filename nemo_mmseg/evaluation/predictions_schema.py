"""The schema of ``predictions.json``, as far as it is read back; `DumpReferringResults` writes it.

Fields that no rule names are not read, so they may hold anything.
"""

from __future__ import annotations

from nemo_mmseg.utils.annotation_schema import ID, SIDE, TEXT
from nemo_mmseg.utils.faults import MISSING, Faults, Rule, fault
from nemo_mmseg.utils.fileio import load_json

PREDICTIONS = 'predictions.json'
BY_TEST = 'tools/test.py --out writes it, of this version, with ground truth'
NONE = type(None)

COUNT = Rule(f'a whole number of pixels from 0 to 2**40 - 1; {BY_TEST}', (int,), 0, 2**40)
SHARE = Rule(f'a number from 0 to 1; {BY_TEST}', (int, float), also=lambda value: 0 <= value <= 1)
NUMBER = Rule(
    'a whole number of 64 bits, or None',
    (int, NONE),
    also=lambda value: value is None or -(2**63) <= value < 2**63,
    optional=True,
)
NAME = Rule('a text, or None', (str, NONE), optional=True)
FLAG = Rule('true or false', (bool, NONE), optional=True)
SCORE = Rule('a finite number', (int, float), -(2**63), 2**63, optional=True)

RECORDS = Rule(f'a list of records; {BY_TEST}', (list,))
# What is the same for all records.
HEAD = dict(
    empty_union=SHARE,
    tie=Rule("'>=' or '>'", (str,), also=('>=', '>').__contains__),
    no_target_rule=Rule('a dict, or None', (dict, NONE)),
)
# Of a record that is counted.
SCORED = dict(
    sent_id=NUMBER,
    ref_id=NUMBER,
    intersection=COUNT,
    union=COUNT,
    target_area=SHARE,
    num_distractors=NUMBER,
    image=NAME,
    expression=NAME,
    dataset=NAME,
    no_target=FLAG,
    predicted_no_target=FLAG,
)


def _is_code(value: dict) -> bool:
    size = value.get('size')
    return type(size) is list and len(size) == 2 and SIDE.holds(*size)


# Of a record whose mask is read.
MASKED = dict(
    sent_id=ID,
    ref_id=ID,
    image_id=ID,
    image=TEXT,
    score=SCORE,
    area=COUNT,
    rle=Rule('a dict with size, [height, width] in pixels, and counts', (dict,), also=_is_code),
)


def load_predictions(
    file: str, rules: dict[str, Rule], head: dict[str, Rule] | None = None
) -> dict:
    """Read ``predictions.json`` and compare it with a schema.

    Args:
        file: The file.
        rules: Of its records, by field.
        head: Of what is the same for all records. Defaults to no rules.

    Returns:
        The content; ``predictions`` are the records.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A field holds what it must not.
        ValueError: The file is damaged.
    """
    content = load_json(file)
    if type(content) is not dict:
        raise fault(file, 'the file', content, f'a dict of results; {BY_TEST}')
    for name, rule in {'predictions': RECORDS, **(head or {})}.items():
        if not rule.holds(found := content.get(name, MISSING)):
            raise fault(file, name, found, rule.allowed)
    Faults().check(content['predictions'], rules, file, 'prediction', 'sent_id')
    return content


def check_counts(records: list[dict], file: str) -> None:
    """Refuse a union that is smaller than the intersection.

    Raises:
        DataError: Names the prediction.
    """
    for record in records:
        if record['intersection'] > record['union']:
            entry = f'{file}: prediction {record.get("sent_id", MISSING)}'
            allowed = f'at least the intersection, {record["intersection"]}'
            raise fault(entry, 'union', record['union'], allowed)
