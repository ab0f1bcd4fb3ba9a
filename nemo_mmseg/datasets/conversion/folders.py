"""A folder of pictures, a folder of masks and a table of sentences, in the JSON form."""

from __future__ import annotations

import csv
import os.path as osp
from collections.abc import Iterator
from dataclasses import replace

from nemo_mmseg.utils.annotation_schema import FILE_NAME, TEXT
from nemo_mmseg.utils.faults import MISSING, Faults, fault, told_by
from nemo_mmseg.utils.images import read_image
from nemo_mmseg.utils.referring_json import (
    OBJECT,
    OPTIONAL_SPLIT,
    refuse_without_expressions,
    write_referring_json,
)

from ..segmentation import encode_mask, read_mask
from .coco import mask_fields

COLUMNS = ('image', 'mask', 'sentence')
MASK = replace(OBJECT['mask'], optional=False)
ROW = dict(image=FILE_NAME, sentence=TEXT, split=OPTIONAL_SPLIT)


def folders_to_json(images_dir: str, masks_dir: str, csv_file: str, out: str) -> None:
    """Write the JSON form of pictures, masks as PNGs, and a table of sentences.

    Every picture and mask that the table names is decoded once.

    Args:
        images_dir: Folder of the pictures.
        masks_dir: Folder of the masks, of the pictures' sizes: black but on the object.
        csv_file: A line a sentence, below a header with the columns ``image``, ``mask``,
            ``sentence``, and perhaps ``category`` and ``split``. Several masks are divided by
            ``;``. No mask is for a sentence of which the picture shows nothing.
        out: File to write.

    Raises:
        FileNotFoundError: A file is missing.
        DataError: A column is missing, a cell holds what it must not (names file and line), or
            there is no line.
        ValueError: A picture or a mask is damaged, or a mask of another size than its picture.
    """
    images: dict[str, dict] = {}
    entries: list[str] = []
    objects: dict[tuple[str, str], dict] = {}
    first_split, first_line = MISSING, ''
    for entry, row in _rows(csv_file):
        split = row.get('split') or MISSING
        first_split, first_line = (first_split, first_line) if first_line else (split, entry)
        if (split is MISSING) != (first_split is MISSING):
            allowed = 'in all lines or in none; ' + first_line.removeprefix(f'{csv_file}: ')
            said = 'has none' if first_split is MISSING else 'has one'
            raise fault(entry, 'split', split, f'{allowed} {said}')
        name = row['image']
        if name not in images:
            with told_by(entry):
                height, width = read_image(osp.join(images_dir, name)).shape[:2]
            entries.append(entry)
            images[name] = dict(
                file_name=name, height=height, width=width, objects=[], expressions=[]
            )
        targets = []
        for mask in filter(None, map(str.strip, row['mask'].split(';'))):
            if (name, mask) not in objects:
                made = _object(len(objects) + 1, mask, masks_dir, images[name], entry)
                made.update({'category': row['category']} if row.get('category') else {})
                objects[name, mask] = made
                images[name]['objects'].append(made)
            described = objects[name, mask]
            if row.get('category') and row['category'] != described.get('category'):
                allowed = f'{described.get("category")!r}, as in the first line of mask {mask!r}'
                raise fault(entry, 'category', row['category'], allowed)
            targets.append(described['id'])
        expression = dict(text=row['sentence'].strip(), targets=list(dict.fromkeys(targets)))
        expression.update({'split': row['split']} if row.get('split') else {})
        images[name]['expressions'].append(expression)
    refuse_without_expressions(list(images.values()), csv_file, 'sentence')
    write_referring_json(out, list(images.values()), source=csv_file, entries=entries)


def _rows(csv_file: str) -> Iterator[tuple[str, dict]]:
    """Yield the checked lines, each with file and line for messages."""
    try:
        # With utf-8-sig also what Excel writes.
        with open(csv_file, encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                allowed = f'a header with {", ".join(COLUMNS)}, and perhaps category and split'
                raise fault(csv_file, f'column {missing[0]}', MISSING, f'{allowed}, divided by ","')
            for row in reader:
                entry = f'{csv_file}: line {reader.line_num}'
                if None in row or None in row.values():
                    found = [cell for cell in row.values() if cell is not None]
                    allowed = f'{len(reader.fieldnames)} cells; one with a comma is in quotes'
                    raise fault(entry, 'the line', found, allowed)
                Faults().check_one(row, ROW, entry)
                yield entry, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f'{csv_file} is no CSV in UTF-8: {error}') from error


def _object(number: int, mask: str, masks_dir: str, image: dict, entry: str) -> dict:
    if not MASK.holds(mask):
        raise fault(entry, 'mask', mask, MASK.allowed)
    with told_by(entry):
        drawn = read_mask(osp.join(masks_dir, mask), image['height'], image['width'])
    about = mask_fields(encode_mask(drawn))
    if not about['area']:
        raise fault(entry, 'mask', mask, 'a file that is not black all over')
    return dict(id=number, mask=mask, **about)
