"""What Label Studio exports as JSON, in the JSON form."""

from __future__ import annotations

import os.path as osp
import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from nemo_mmseg.utils.annotation_schema import LIST, NUMBER, SIDE, TEXT
from nemo_mmseg.utils.faults import MISSING, Faults, Rule, fault
from nemo_mmseg.utils.fileio import load_json
from nemo_mmseg.utils.images import MAX_PIXELS, is_image_name
from nemo_mmseg.utils.referring_json import refuse_without_expressions, write_referring_json
from nemo_mmseg.utils.rle import encode_mask

from .brush import decode_brush
from .coco import measured
from .shapes import POINTS, ellipse, rectangle

# Types of results that draw a region; each also comes with "labels" behind it.
KINDS = ('polygon', 'rectangle', 'ellipse', 'brush')
ANY_DICT = Rule('a dict', (dict,))
TASK = dict(data=ANY_DICT, annotations=LIST)
RESULT = dict(id=TEXT, type=TEXT, value=ANY_DICT)
REGION = dict(
    original_width=SIDE,
    original_height=SIDE,
    image_rotation=Rule('0: masks belong to the stored pixels', (int,), 0, 1, optional=True),
)
SHARE = replace(NUMBER, allowed='a number, in per cent of the picture')
TURN = replace(NUMBER, optional=True)


def _are_bytes(value: list) -> bool:
    return set(map(type, value)) == {int} and 0 <= min(value) and max(value) < 256


# Of the value of a result.
VALUE = dict(
    polygon=dict(points=POINTS),
    rectangle=dict(x=SHARE, y=SHARE, width=SHARE, height=SHARE, rotation=TURN),
    ellipse=dict(x=SHARE, y=SHARE, radiusX=SHARE, radiusY=SHARE, rotation=TURN),
    brush=dict(
        format=Rule("'rle'", (str,), also=('rle',).__contains__),
        rle=Rule('a list of bytes', (list,), also=_are_bytes),
    ),
    textarea=dict(text=Rule('a list of texts', (list,), also=lambda texts: TEXT.holds(*texts))),
)


def label_studio_to_json(
    export: str, images_dir: str, out: str, image_key: str = 'image', split: str | None = None
) -> None:
    """Write an export of Label Studio, of its format JSON, in the JSON form.

    A region (polygon, rectangle, ellipse or brush) is an object, its first label the category. The
    texts of a ``TextArea`` with ``perRegion`` are its expressions. Of a task the first annotation
    is taken that was not cancelled.

    Args:
        export: The file.
        images_dir: Folder of the pictures.
        out: File to write.
        image_key: Field of a task's data that holds the picture. Defaults to ``'image'``.
        split: What the split is called. Defaults to None: the file has no splits.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A field holds what it must not, a picture is not in the folder, or no region has
            a text.
        ValueError: The file is damaged.
    """
    tasks = load_json(export)
    if type(tasks) is not list:
        raise fault(export, 'the file', tasks, 'a list of tasks: the export format JSON')
    Faults().check(tasks, TASK, export, 'task', 'id')
    images, entries, num_objects = [], [], 0
    for row, task in enumerate(tasks):
        entry = f'{export}: task {task.get("id", f"at position {row}")}'
        results = _results(task['annotations'], entry)
        drawn = _drawn(results, entry)
        if not drawn:
            continue
        first = next(iter(drawn.values()))
        size = first['original_height'], first['original_width']
        numbers = {key: num_objects + place for place, key in enumerate(drawn, 1)}
        num_objects += len(drawn)
        entries.append(entry)
        source = task['data'].get(image_key, MISSING)
        images.append(
            dict(
                file_name=_file_name(source, images_dir, image_key, entry),
                height=size[0],
                width=size[1],
                **({} if split is None else {'split': split}),
                objects=[_object(drawn[key], numbers[key], size, results, entry) for key in drawn],
                expressions=_expressions(results, numbers, entry),
            )
        )
    refuse_without_expressions(images, export, 'text of a TextArea with perRegion')
    write_referring_json(out, images, source=export, entries=entries)


def _kind(result: dict) -> str:
    return result['type'].removesuffix('labels')


def _drawn(results: list[dict], entry: str) -> dict[str, dict]:
    """Return the results that draw regions, by the ids of these.

    A region with labels of two controls is drawn twice, alike.
    """
    drawn: dict[str, dict] = {}
    for one in results:
        if _kind(one) in KINDS and _outline(drawn.setdefault(one['id'], one)) != _outline(one):
            raise fault(f'{entry}: region', 'id', one['id'], 'one that no other region has')
    return drawn


def _outline(result: dict) -> tuple[str, dict]:
    shape = {key: value for key, value in result['value'].items() if key != result['type']}
    return _kind(result), shape


def _labels(result: dict) -> str | None:
    """Return the first label that a result gives its region."""
    labels = result['value'].get(result['type']) if result['type'].endswith('labels') else None
    return labels[0] if type(labels) is list and labels and TEXT.holds(labels[0]) else None


def _results(annotations: list, entry: str) -> list[dict]:
    """Return the checked results of the first annotation that was not cancelled."""
    faults = Faults()
    faults.check(annotations, {'result': LIST}, entry, 'annotation', 'id')
    for annotation in annotations:
        if annotation.get('was_cancelled'):
            continue
        # Relations have neither id nor value.
        results = [
            one
            for one in annotation['result']
            if type(one) is dict and one.get('type') != 'relation'
        ]
        faults.check(results, RESULT, entry, 'result', 'id')
        for one in results:
            where, kind = f'{entry}: result {one["id"]}', _kind(one)
            if kind in KINDS:
                faults.check_one(one, REGION, where)
            faults.check_one(one['value'], VALUE.get(kind, {}), f'{where}: value')
        return results
    return []


def _file_name(source: Any, images_dir: str, image_key: str, entry: str) -> str:
    """Find the picture of a task, by the longest end of its address that is in the folder."""
    for name in _possible_names(source) if type(source) is str else []:
        if is_image_name(name) and osp.isfile(osp.join(images_dir, name)):
            return name
    raise fault(
        entry, image_key, source, f'an address that ends in the path of a file in {images_dir}'
    )


def _possible_names(source: str) -> list[str]:
    """Return the ends of an address, the longest first; none of what is no address."""
    try:
        address = urlsplit(source)
    except ValueError:
        return []
    # Local storage names the file behind "?d=".
    path = parse_qs(address.query).get('d', [unquote(address.path)])[0]
    parts = PurePosixPath(path.replace('\\', '/')).parts
    ends = ['/'.join(parts[start:]) for start in range(len(parts))]
    # An upload gets eight digits before its name.
    return ends + ([re.sub(r'^[0-9a-f]{8}-', '', ends[-1])] if ends else [])


def _expressions(results: list[dict], numbers: dict[str, int], entry: str) -> list[dict]:
    """Return the texts of the regions, whose numbers are given by their ids."""
    found = []
    for one in results:
        if one['type'] == 'textarea':
            if one['id'] not in numbers:
                allowed = 'the id of a region: a TextArea needs perRegion="true"'
                raise fault(f'{entry}: textarea', 'id', one['id'], allowed)
            targets = [numbers[one['id']]]
            found += [dict(text=text, targets=targets) for text in one['value']['text']]
    return found


def _object(region: dict, number: int, size: tuple, results: list[dict], entry: str) -> dict:
    entry = f'{entry}: region {region["id"]}'
    found = [region['original_height'], region['original_width']]
    if found != list(size):
        raise fault(entry, 'original_height and original_width', found, f'{list(size)}, as before')
    segmentation = _segmentation(region, *size, entry)
    made = dict(id=number, segmentation=segmentation, **measured(segmentation, *size, entry))
    labels = [_labels(other) for other in results if other['id'] == region['id']]
    category = next(filter(None, labels), None)
    return made if category is None else dict(made, category=category)


def _segmentation(result: dict, height: int, width: int, entry: str) -> list | dict:
    kind, value = _kind(result), result['value']
    across, down = width / 100, height / 100  # pixels a per cent
    if kind == 'brush':
        if height * width > MAX_PIXELS:
            raise fault(entry, 'height and width', [height, width], f'at most {MAX_PIXELS} pixels')
        return encode_mask(decode_brush(bytes(value['rle']), height, width, entry))
    if kind == 'polygon':
        return [[size for x, y in value['points'] for size in (x * across, y * down)]]
    place, turn = (value['x'] * across, value['y'] * down), value.get('rotation', 0)
    if kind == 'rectangle':
        return [rectangle(*place, value['width'] * across, value['height'] * down, turn)]
    return [ellipse(*place, value['radiusX'] * across, value['radiusY'] * down, turn)]
