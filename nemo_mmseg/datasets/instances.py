"""``instances.json``: images and annotations by id, checked once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from nemo_mmseg.utils.annotation_schema import ANNOTATION, BOX, ID, IMAGE
from nemo_mmseg.utils.faults import MISSING, DataError, Faults, Rule, fault
from nemo_mmseg.utils.images import MAX_PIXELS

from .segmentation import clean_segmentation


@dataclass(frozen=True)
class Instances:
    """``instances.json``: entries by id, and objects by (image id, category id), crowds not.

    An entry that was found faulty is None, so that a reference of it is not a second fault.
    """

    file: str
    images: dict[int, dict | None]
    annotations: dict[int, dict | None]
    num_objects: Counter
    targets: dict[int, dict | None] = field(default_factory=dict)  # with clean segmentations


def instances_of(tables: Any, file: str, faults: Faults) -> Instances:
    """Check ``instances.json`` but for segmentations, and order its entries by their ids.

    Args:
        tables: What the file holds.
        file: Its name, for messages.
        faults: What becomes of errors.

    Returns:
        The entries by id.

    Raises:
        DataError: It has no tables, or the faults are not collected and a field holds what it must
            not.
    """
    if type(tables) is not dict:
        raise fault(file, 'the file', tables, 'a dict of images and annotations')
    images = _by_id(tables, 'images', IMAGE, file, faults)
    for number, image in images.items():
        if image and image['height'] * image['width'] > MAX_PIXELS:
            sides = [image['height'], image['width']]
            allowed = f'at most {MAX_PIXELS} pixels, which is what is decoded'
            faults.add(fault(f'{file}: image {number}', 'height and width', sides, allowed))
            images[number] = None
    annotations = _by_id(tables, 'annotations', ANNOTATION, file, faults)
    objects = (one for one in annotations.values() if one and not one.get('iscrowd'))
    num_objects = Counter((one['image_id'], one['category_id']) for one in objects)
    return Instances(file, images, annotations, num_objects)


def _by_id(
    tables: dict, name: str, rules: dict[str, Rule], file: str, faults: Faults
) -> dict[int, dict | None]:
    records = tables.get(name, MISSING)
    if type(records) is not list:
        raise fault(file, name, records, 'a list')
    kind, found = name[:-1], {}
    sound = faults.check(records, rules, file, kind, 'id')
    for record, is_sound in zip(records, sound):
        number = record.get('id') if type(record) is dict else None
        if not is_sound:
            if ID.holds(number):
                found.setdefault(number, None)
        elif found.setdefault(number, record) is not record and not _equal(found[number], record):
            allowed = 'an id of one entry; two different ones have it'
            faults.add(fault(f'{file}: {kind} {number}', 'id', number, allowed))
    return found


def _equal(one: Any, other: Any) -> bool:
    try:
        return one == other
    except RecursionError:  # of JSON that is nested deeply in a field that is not read
        return False


def checked_target(
    annotation: dict, image: dict, instances: Instances, faults: Faults
) -> dict | None:
    """Check what only a target needs, once; None if it is faulty."""
    number = annotation['id']
    if number not in instances.targets:
        instances.targets[number] = None
        size = image['height'], image['width']
        entry = f'{instances.file}: annotation {number}'
        try:
            box = annotation.get('bbox', MISSING)
            clean = clean_segmentation(annotation.get('segmentation', MISSING), *size, entry)
            if not BOX.holds(box):
                raise fault(entry, 'bbox', box, BOX.allowed)
            instances.targets[number] = dict(annotation, segmentation=clean)
        except DataError as error:
            faults.add(error)
    return instances.targets[number]
