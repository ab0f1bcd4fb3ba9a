"""What LabelMe saves, a JSON file a picture, in the JSON form."""

from __future__ import annotations

import base64
import math
import os.path as osp
from pathlib import Path
from typing import Any

import numpy as np

from nemo_mmseg.utils.annotation_schema import LIST, SIDE, TEXT
from nemo_mmseg.utils.faults import Faults, Rule, fault
from nemo_mmseg.utils.fileio import load_json
from nemo_mmseg.utils.images import decode_image
from nemo_mmseg.utils.referring_json import refuse_without_expressions, write_referring_json
from nemo_mmseg.utils.rle import encode_mask, json_rle

from ..segmentation import clean_segmentation, encode_segmentation
from .coco import measured
from .shapes import POINTS, ellipse, rectangle

NONE = type(None)
KINDS = ('polygon', 'rectangle', 'oriented_rectangle', 'circle', 'mask')
NUM_POINTS = dict(rectangle=2, oriented_rectangle=4, circle=2, mask=2)


PICTURE = dict(imagePath=TEXT, imageHeight=SIDE, imageWidth=SIDE, shapes=LIST)
SHAPE = dict(
    label=TEXT,
    points=POINTS,
    shape_type=Rule(
        f'one of {", ".join(KINDS)}', (str, NONE), also=(None, *KINDS).__contains__, optional=True
    ),
    group_id=Rule('a whole number, a text, or null', (int, str, NONE), optional=True),
    description=Rule('a text, or null', (str, NONE), optional=True),
    mask=Rule('a PNG in base64, or null', (str, NONE), optional=True),
)


def labelme_to_json(folder: str, images_dir: str, out: str, split: str | None = None) -> None:
    """Write what LabelMe saved in the JSON form.

    The description of a shape holds its expressions, one a line; its label is the category. Shapes
    of one label and one group are one object. One without a description is a distractor.

    Args:
        folder: Of LabelMe's JSON files; folders below are looked through, too.
        images_dir: Folder of the pictures, in which all of them are.
        out: File to write.
        split: What the split is called. Defaults to None: the file has no splits.

    Raises:
        FileNotFoundError: There is no JSON file in the folder.
        DataError: A field holds what it must not, or no shape has a description.
        ValueError: A file is damaged.
    """
    images, files, num_objects = [], [], 0
    for file in sorted(map(str, Path(folder).rglob('*.json'))):
        content = load_json(file)
        if type(content) is not dict or not content.keys() & PICTURE.keys():
            continue  # no file of LabelMe, e.g. an earlier result
        Faults().check_one(content, PICTURE, file)
        Faults().check(content['shapes'], SHAPE, file, 'shape', 'label')
        image = dict(
            file_name=_file_name(content['imagePath'], file, images_dir),
            height=content['imageHeight'],
            width=content['imageWidth'],
            **({} if split is None else {'split': split}),
            objects=[],
            expressions=[],
        )
        for shapes in _grouped(content['shapes']).values():
            num_objects += 1
            image['objects'].append(_object(num_objects, shapes, image, file))
            lines = [line for one in shapes for line in (one.get('description') or '').splitlines()]
            texts = dict.fromkeys(line.strip() for line in lines if line.strip())
            for text in texts:
                if not TEXT.holds(text):
                    entry = f'{file}: shape {shapes[0]["label"]!r}'
                    raise fault(entry, 'a line of description', text, TEXT.allowed)
            image['expressions'] += [dict(text=text, targets=[num_objects]) for text in texts]
        images.append(image)
        files.append(file)
    if not images:
        raise FileNotFoundError(f'{folder} has no JSON file of LabelMe')
    refuse_without_expressions(images, folder, 'description of shapes')
    write_referring_json(out, images, source=folder, entries=files)


def _file_name(path: str, file: str, images_dir: str) -> str:
    """Return the path of a picture inside the folder of the pictures."""
    source = osp.join(osp.dirname(file), path.replace('\\', '/'))  # as Windows writes it
    name = osp.relpath(source, images_dir)
    if name.startswith('..') or not osp.isfile(source):
        raise fault(file, 'imagePath', path, f'a file in {images_dir}')
    return Path(name).as_posix()


def _grouped(shapes: list[dict]) -> dict[Any, list[dict]]:
    """Return the shapes of each object."""
    objects: dict[Any, list[dict]] = {}
    for row, one in enumerate(shapes):
        group = one.get('group_id')
        key = row if group is None else (one['label'], group)
        objects.setdefault(key, []).append(one)
    return objects


def _object(number: int, shapes: list[dict], image: dict, file: str) -> dict:
    size = image['height'], image['width']
    entry = f'{file}: shape {shapes[0]["label"]!r}'
    parts = [_part(one, *size, entry) for one in shapes]
    if any(type(part) is dict for part in parts):  # then RLEs all
        for row, part in enumerate(parts):
            if type(part) is not dict:
                clean_segmentation([part], *size, entry)
                parts[row] = json_rle(encode_segmentation([part], *size))
    about = measured(parts, *size, entry)
    return dict(id=number, category=shapes[0]['label'], segmentation=parts, **about)


def _part(shape: dict, height: int, width: int, entry: str) -> list | dict:
    """Return a polygon, or the RLE of a mask."""
    kind, points = shape.get('shape_type') or 'polygon', shape['points']
    if len(points) != NUM_POINTS.get(kind, max(len(points), 3)):
        allowed = f'{NUM_POINTS.get(kind, "at least 3")} of a {kind}'
        raise fault(entry, 'the number of points', len(points), allowed)
    if kind == 'rectangle':
        (x0, x1), (y0, y1) = (sorted(values) for values in zip(*points))
        return rectangle(x0, y0, x1 - x0, y1 - y0)
    if kind == 'circle':
        radius = math.dist(*points)
        return ellipse(*points[0], radius, radius)
    if kind == 'mask':
        return encode_mask(_mask(shape, height, width, entry))
    return [value for point in points for value in point]


def _mask(shape: dict, height: int, width: int, entry: str) -> np.ndarray:
    """Return the mask ``(H, W)`` of a shape that stores its pixels between two corners."""
    (x0, y0), (x1, y1) = ([int(value) for value in point] for point in shape['points'])
    if not (0 <= x0 <= x1 < width and 0 <= y0 <= y1 < height):
        raise fault(entry, 'points', shape['points'], 'corners of a part of the picture')
    try:
        content = base64.b64decode(shape.get('mask') or '', validate=True)
    except ValueError as error:  # of base64, or of a letter that is not ASCII
        raise fault(entry, 'mask', shape['mask'], SHAPE['mask'].allowed) from error
    part = decode_image(content, f'{entry}: mask', y1 - y0 + 1, x1 - x0 + 1)
    mask = np.zeros((height, width), np.uint8)
    mask[y0 : y1 + 1, x0 : x1 + 1] = part.any(axis=2)
    return mask
