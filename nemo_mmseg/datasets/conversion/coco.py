"""What files in COCO's layout and the JSON form share: images, annotations, categories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nemo_mmseg.utils.annotation_schema import ANNOTATION, IMAGE, LIST
from nemo_mmseg.utils.faults import MISSING, Faults, all_sound, fault
from nemo_mmseg.utils.fileio import load_json
from nemo_mmseg.utils.referring_json import NAMED_CATEGORY, OPTIONAL_LIST, refuse_repeated
from nemo_mmseg.utils.rle import mask_fields

from ..segmentation import clean_segmentation, encode_segmentation

TABLES = dict(images=LIST, annotations=LIST, categories=OPTIONAL_LIST)
# Names that have another meaning in the JSON form.
RESERVED = dict(images=('objects', 'expressions', 'references'), annotations=('mask', 'category'))


def read_coco(file: str) -> dict:
    """Read ``instances.json``: a dict with ``images``, ``annotations``, perhaps ``categories``.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A field holds what it must not or has a name that the JSON form needs, or an
            annotation is of no image of the file.
        ValueError: The file is damaged.
    """
    tables = load_json(file)
    check_coco(tables, file)
    for kind, names in RESERVED.items():
        for one in tables[kind]:
            taken = [name for name in names if name != 'category' or not _lacks_category(one)]
            refuse_names(one, taken, f'{file}: {kind[:-1]} {one["id"]}')
    return tables


def check_coco(tables: Any, file: str) -> None:
    """Check what ``instances.json`` holds.

    Args:
        tables: The content.
        file: Its name, for messages.

    Raises:
        DataError: A field holds what it must not, or an annotation is of no image of the file.
    """
    faults = Faults()
    if type(tables) is not dict:
        raise fault(file, 'the file', tables, 'a dict of images and annotations')
    faults.check_one(tables, TABLES, file)
    faults.check(tables['images'], IMAGE, file, 'image', 'id')
    faults.check(tables['annotations'], ANNOTATION, file, 'annotation', 'id')
    for kind in ('images', 'annotations'):
        entries = [(f'{file}: {kind[:-1]} {one["id"]}', one) for one in tables[kind]]
        refuse_repeated(entries, 'id', faults)
    known = {image['id'] for image in tables['images']}
    for one in tables['annotations']:
        if one['image_id'] not in known:
            entry = f'{file}: annotation {one["id"]}'
            raise fault(entry, 'image_id', one['image_id'], 'the id of an image of the file')


def refuse_names(record: dict, names: Iterable[str], entry: str) -> None:
    """Refuse fields to carry along that the other form would take for its own.

    Args:
        record: The entry of a file.
        names: Of the fields.
        entry: File and entry, for the message.

    Raises:
        DataError: The entry has one of them.
    """
    for name in names:
        if name in record:
            allowed = 'a field of another name: the form to write has a field of this name'
            raise fault(entry, name, record[name], allowed)


def images_with_objects(tables: dict) -> tuple[dict, dict[int, dict]]:
    """Turn what :func:`read_coco` returned into the JSON form.

    Returns:
        The head: what the file has beside images and annotations. The images by id, with objects,
        without expressions. An object has the name of its category if all categories have one.
    """
    head = {key: tables[key] for key in tables if key not in ('images', 'annotations')}
    names = _names(tables)
    images = {one['id']: dict(one, objects=[], expressions=[]) for one in tables['images']}
    for annotation in tables['annotations']:
        images[annotation['image_id']]['objects'].append(_object(annotation, names))
    return head, images


def _names(tables: dict) -> dict[int, str]:
    """Names of the categories by id; none where they do not tell the categories of all objects."""
    table = tables.get('categories', [])
    if not all_sound(table, NAMED_CATEGORY):
        return {}
    names = {one['id']: one['name'] for one in table}
    used = {one['category_id'] for one in tables['annotations'] if not _lacks_category(one)}
    return names if len(set(names.values())) == len(table) and used <= set(names) else {}


def _lacks_category(annotation: dict) -> bool:
    """Whether an annotation came from an object without a category: json_to_refcoco says so."""
    return annotation.get('category', MISSING) is None


def _object(annotation: dict, names: dict[int, str]) -> dict:
    number, none = annotation['category_id'], _lacks_category(annotation)
    described = dict(annotation, category=None if none else names.get(number, number))
    for key in ('image_id', 'category_id', *(['category'] if none else [])):
        del described[key]
    if described.get('segmentation', MISSING) in ([], None):
        del described['segmentation']
    if described.get('iscrowd') == 0:
        del described['iscrowd']
    return described


def measured(segmentation: list | dict, height: int, width: int, entry: str) -> dict[str, Any]:
    """Return ``bbox`` and ``area`` of a segmentation, checked.

    Args:
        segmentation: Polygons, an RLE or a list of RLEs.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        entry: File and object, for messages.

    Raises:
        DataError: It is wrong or empty.
    """
    clean_segmentation(segmentation, height, width, entry)
    return mask_fields(encode_segmentation(segmentation, height, width))
