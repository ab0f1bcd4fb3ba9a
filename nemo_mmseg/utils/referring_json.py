"""The plain JSON form of referring data: images, their objects, and expressions with targets.

A ``.json`` file is a dict with a list ``images``; a ``.jsonl`` file has an image a line. Fields
that no rule names may hold anything; converters carry them along. ``docs/own_data.md`` is the table
for those who write such files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

from mmengine.fileio import get

from .annotation_schema import AREA, BOX, CROWD, FILE_NAME, ID, LIST, MAX_LENGTH, SIDE, SPLIT, TEXT
from .atomic_write import write_text
from .faults import MISSING, Faults, OnlyOnce, Rule, fault
from .fileio import collector_paused, load_json
from .images import MAX_PIXELS, image_name

OPTIONAL_ID = replace(ID, optional=True)
OPTIONAL_LIST = replace(LIST, optional=True)
OPTIONAL_SPLIT = replace(SPLIT['split'], optional=True)
IMAGE = dict(
    id=OPTIONAL_ID,
    file_name=FILE_NAME,
    height=SIDE,
    width=SIDE,
    split=OPTIONAL_SPLIT,
    objects=OPTIONAL_LIST,
    expressions=OPTIONAL_LIST,
    references=OPTIONAL_LIST,
)
OBJECT = dict(
    id=ID,
    category=Rule(
        f'a name of at most {MAX_LENGTH} characters, or a whole number of at least 0',
        (str, int),
        also=lambda value: ID.holds(value) or TEXT.holds(value),
        optional=True,
    ),
    mask=replace(
        FILE_NAME,
        allowed=FILE_NAME.allowed.replace('images', 'masks'),
        optional=True,
    ),
    segmentation=Rule('polygons, an RLE, or a list of RLEs', (list, dict), optional=True),
    bbox=BOX,
    area=AREA,
    iscrowd=CROWD,
)
TARGETS = Rule(
    'a list of ids of different objects of the image; an empty one stands for no target',
    (list,),
    also=lambda value: ID.holds(*value) and len(set(value)) == len(value),
)
EXPRESSION = dict(
    text=TEXT, targets=TARGETS, id=OPTIONAL_ID, ref_id=OPTIONAL_ID, split=OPTIONAL_SPLIT
)
NAMED_CATEGORY = dict(id=ID, name=TEXT)
# File and place of each entry, for messages, and the entry.
Entries = Sequence[tuple[str, dict]]


@dataclass(frozen=True)
class ReferringJSON:
    """What a file holds, checked and complete.

    Attributes:
        head: What a ``.json`` file has beside ``images``, e.g. ``categories``.
        images: The images. All have ``id``, ``objects`` and ``expressions``; all expressions have
            ``id``, ``ref_id`` and ``split`` (None in a file without splits).
        category_ids: Number of each category that has a name.
    """

    head: dict
    images: list[dict]
    category_ids: dict[str, int]

    def category_id(self, described: dict) -> int:
        """Return the number of an object's category; 0 where it has none."""
        category = described.get('category', 0)
        return category if isinstance(category, int) else self.category_ids[category]


@collector_paused()
def read_referring_json(
    file: str, text_key: str = 'text', errors: list[str] | None = None, content: Any = None
) -> ReferringJSON:
    """Read a file and check all of it but the segmentations.

    Args:
        file: ``*.jsonl``, or else JSON; local or of any MMEngine file backend.
        text_key: Field of the expressions that must be there, beside ``text``. Defaults to
            ``'text'``.
        errors: Gets a line for each fault; an image with a fault in it is left out. Defaults to
            None: the first fault raises.
        content: What ``load_json`` returned of it, where it was called already. It is changed.
            Defaults to None.

    Returns:
        The content.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A field holds what it must not.
        ValueError: The file is damaged.
    """
    if file.endswith('.jsonl'):
        lines = dict(_json_lines(file))
        head, records, places = {}, list(lines.values()), [f'line {number}' for number in lines]
    else:
        head = load_json(file) if content is None else content
        if type(head) is not dict:
            raise fault(file, 'the file', head, 'a dict with images (.jsonl has an image a line)')
        records = head.pop('images', MISSING)
        if type(records) is not list:
            raise fault(file, 'images', records, 'a list')
        places = [_place(record, row) for row, record in enumerate(records)]
    entries = [f'{file}: {place}' for place in places]
    return checked(head, records, file, entries, text_key, errors)


def checked(
    head: dict,
    images: Sequence[Any],
    file: str,
    entries: Sequence[str],
    text_key: str = 'text',
    errors: list[str] | None = None,
) -> ReferringJSON:
    """Check and complete what a file holds, see :func:`read_referring_json`.

    Args:
        head: What the file has beside images.
        images: The images. They are changed.
        file: Its name, for messages.
        entries: File and place of each image, for messages.
        text_key: See there.
        errors: See there.
    """
    faults = Faults(errors)
    categories = head.get('categories', [])
    if type(categories) is not list:
        faults.add(fault(file, 'categories', categories, 'a list'))
        categories = []
    rules = dict(EXPRESSION, **{text_key: TEXT})
    kept = [
        (entry, image)
        for entry, image in zip(entries, images)
        if _is_sound(image, rules, entry, faults)
    ]
    _number(kept, 'id', faults)
    plain = [(entry, dict(file_name=image_name(image['file_name']))) for entry, image in kept]
    refuse_repeated(plain, 'file_name', faults)
    objects = [
        (f'{entry}: object {one["id"]}', one) for entry, image in kept for one in image['objects']
    ]
    refuse_repeated(objects, 'id', faults)
    _refuse_mixed_categories(objects, faults)
    expressions = [
        (f'{entry}: expression {_name(one, row)}', one)
        for entry, image in kept
        for row, one in enumerate(image['expressions'])
    ]
    _number(expressions, 'id', faults)
    _refuse_mixed_splits(expressions, faults)
    owners = [image['id'] for _, image in kept for _ in image['expressions']]
    _number_references(expressions, owners, faults)
    names = {one['category'] for _, one in objects if type(one.get('category')) is str}
    rules = NAMED_CATEGORY if names else {'id': ID}
    categories = compress(categories, faults.check(categories, rules, file, 'category', 'id'))
    return ReferringJSON(head, [image for _, image in kept], _category_ids(list(categories), names))


def write_referring_json(
    file: str | os.PathLike,
    images: list[dict],
    head: dict | None = None,
    source: str | None = None,
    entries: Sequence[str] | None = None,
) -> None:
    """Write a file that :func:`read_referring_json` takes; it has its name only when it is whole.

    Args:
        file: To write. One that ends in ``.jsonl`` has no place for the head.
        images: The images.
        head: What a ``.json`` file has beside them. Defaults to nothing.
        source: What a converter read, for messages: the user knows that file. Defaults to the file
            to write.
        entries: File and place there of each image, for messages. Defaults to source and id.

    Raises:
        DataError: The reader would refuse the file.
    """
    lines = [json.dumps(image) for image in images]
    copies = [json.loads(line) for line in lines]
    source = source or str(file)
    entries = entries or [f'{source}: {_place(image, row)}' for row, image in enumerate(copies)]
    checked(dict(head or {}), copies, source, entries)
    if str(file).endswith('.jsonl'):
        write_text(file, ''.join(f'{line}\n' for line in lines))
    else:
        # An image a line: plain to read, and to compare.
        start = json.dumps({**(head or {}), 'images': []})
        write_text(file, start[:-2] + '\n' + ',\n'.join(lines) + '\n]}\n')


def refuse_without_expressions(images: Sequence[dict], file: str, field: str) -> None:
    """Refuse annotations that nobody described: a converter looked for sentences in vain.

    Args:
        images: What a converter made of them.
        file: What it read, for the message.
        field: Where it looked for sentences.

    Raises:
        DataError: There is no expression.
    """
    if not any(image['expressions'] for image in images):
        raise fault(file, field, MISSING, 'a sentence in one entry of the file at least')


def _json_lines(file: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(get(file).splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = str(error)[:200]
                raise ValueError(
                    f'{file}: line {number} is not valid JSON (cut short?): {reason}'
                ) from error


def _place(record: Any, row: int) -> str:
    return f'image {_name(record, row)}'


def _name(record: Any, row: int) -> str:
    """The id of an entry, or where it is."""
    number = record.get('id') if type(record) is dict else None
    return str(number) if ID.holds(number) else f'at position {row}'


def _is_sound(image: Any, rules: dict[str, Rule], entry: str, faults: Faults) -> bool:
    """Check an image with all that belongs to it, and give it the lists that it lacks."""
    if type(image) is not dict:
        faults.add(fault(entry, 'the image', image, 'a dict'))
        return False
    if not faults.check_one(image, IMAGE, entry):
        return False
    if image['height'] * image['width'] > MAX_PIXELS:
        sides = [image['height'], image['width']]
        faults.add(fault(entry, 'height and width', sides, f'at most {MAX_PIXELS} pixels'))
        return False
    objects = image.setdefault('objects', [])
    expressions = image.setdefault('expressions', [])
    sound = faults.check(objects, OBJECT, entry, 'object', 'id')
    sound += faults.check(expressions, rules, entry, 'expression', 'id')
    sound += faults.check(image.get('references', []), {'id': ID}, entry, 'reference', 'id')
    if not all(sound):
        return False
    sound = [_has_one_form(one, f'{entry}: object {one["id"]}', faults) for one in objects]
    known = {one['id'] for one in objects}
    for row, one in enumerate(expressions):
        one.setdefault('split', image.get('split'))
        if not known.issuperset(one['targets']):
            where = f'{entry}: expression {_name(one, row)}'
            allowed = f'ids of objects of the image: {str(sorted(known))[:80]}'
            faults.add(fault(where, 'targets', one['targets'], allowed))
            sound.append(False)
    return all(sound)


def _has_one_form(described: dict, entry: str, faults: Faults) -> bool:
    forms = [key for key in ('mask', 'segmentation') if key in described]
    if len(forms) == 1 or (not forms and 'bbox' in described):
        return True
    found = forms or MISSING
    allowed = 'one of the two, or a bbox alone'
    faults.add(fault(entry, 'mask and segmentation', found, allowed))
    return False


def _number(entries: Entries, key: str, faults: Faults) -> None:
    """Number entries where none has an id; else each needs its own."""
    if any(key in one for _, one in entries):
        for entry, one in entries:
            if key not in one:
                allowed = 'an id, as other entries of the file have: all or none'
                faults.add(fault(entry, key, MISSING, allowed))
        refuse_repeated(entries, key, faults)
        free = 1 + max(one.get(key, 0) for _, one in entries)
    else:
        free = 1
    for _, one in entries:
        if key not in one:
            one[key] = free
            free += 1


def refuse_repeated(entries: Entries, key: str, faults: Faults) -> None:
    """Refuse that two entries have one id, or one name.

    Args:
        entries: File and place of each entry, for messages, and the entry.
        key: The field; entries that lack it are passed over.
        faults: What becomes of errors.
    """
    once = OnlyOnce(faults)
    for entry, one in entries:
        if key in one:
            once.is_new(entry, key, one[key])


def _refuse_mixed_categories(objects: Entries, faults: Faults) -> None:
    kind = None
    for entry, one in objects:
        found = type(one['category']) if 'category' in one else None
        kind = kind or found
        if found not in (None, kind):
            allowed = 'names of all categories of the file, or numbers of all'
            faults.add(fault(entry, 'category', one['category'], allowed))


def _refuse_mixed_splits(expressions: Entries, faults: Faults) -> None:
    if any(one['split'] is not None for _, one in expressions):
        for entry, one in expressions:
            if one['split'] is None:
                allowed = 'a split, as other entries of the file have: all or none'
                faults.add(fault(entry, 'split', MISSING, allowed))


def _number_references(expressions: Entries, image_ids: list[int], faults: Faults) -> None:
    """Let expressions of the same targets be of one reference, unless the file says which are."""
    given = any('ref_id' in one for _, one in expressions)
    numbers: dict[tuple, int] = {}
    described: dict[int, tuple] = {}
    for (entry, one), image_id in zip(expressions, image_ids):
        about = image_id, tuple(sorted(one['targets'])), one['split']
        if given and 'ref_id' not in one:
            allowed = 'an id, as other entries of the file have: all or none'
            faults.add(fault(entry, 'ref_id', MISSING, allowed))
        # Two expressions without target need not say the same.
        alone = () if one['targets'] else (one['id'],)
        number = one.setdefault('ref_id', numbers.setdefault(about + alone, len(numbers) + 1))
        if described.setdefault(number, about) != about:
            allowed = 'the same for expressions of one image, one split and the same targets only'
            faults.add(fault(entry, 'ref_id', number, allowed))


def _category_ids(categories: list[dict], names: set[str]) -> dict[str, int]:
    """Number the names: as the table of categories does, others in order of the alphabet."""
    numbers = {one['name']: one['id'] for one in categories if type(one.get('name')) is str}
    free = 1 + max([0, *(one['id'] for one in categories)])
    others = sorted(names - set(numbers))
    return numbers | {name: free + row for row, name in enumerate(others)}
