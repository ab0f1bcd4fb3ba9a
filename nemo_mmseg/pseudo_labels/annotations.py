"""Annotation files that are made, not drawn by people: ``instances.json`` with masks as RLE."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemo_mmseg.datasets import BaseReferringDataset
from nemo_mmseg.utils.atomic_write import write_text
from nemo_mmseg.utils.faults import MISSING, Faults, Rule, fault
from nemo_mmseg.utils.fileio import load_json
from nemo_mmseg.utils.rle import encode_mask, mask_fields
from nemo_mmseg.version import __version__


@dataclass(frozen=True)
class LabelledObject:
    """An object that gets a label.

    Args:
        ann_id: Id of its annotation.
        category_id: Its category.
        ref_ids: The references to it, one or more.
    """

    ann_id: int
    category_id: int
    ref_ids: tuple[int, ...]


@dataclass(frozen=True)
class LabelledImage:
    """An image and the objects in it that get labels.

    Args:
        image_id: Its id.
        path: Its file.
        file_name: Its name in the annotation file.
        height: In pixels.
        width: In pixels.
        objects: The objects.
    """

    image_id: int
    path: str
    file_name: str
    height: int
    width: int
    objects: tuple[LabelledObject, ...]


def images_of(dataset: BaseReferringDataset) -> list[LabelledImage]:
    """List the images of a referring data set with the objects that its expressions describe.

    Args:
        dataset: Of any grouping. Its masks are not looked at.

    Returns:
        The images by rising id, their objects by rising id of the annotation.

    Raises:
        ValueError: A reference has several targets or none.
    """
    items: dict[int, dict] = {}
    objects: dict[int, dict[int, LabelledObject]] = {}
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        items[item['img_id']] = item
        found = objects.setdefault(item['img_id'], {})
        for ref_id, targets in zip(item['ref_ids'], item['targets']):
            if len(targets) != 1:
                raise ValueError(
                    f'{dataset.split_file}: reference {ref_id} has {len(targets)} targets; pseudo '
                    'labels need one'
                )
            target = item['instances'][targets[0]]
            ann_id, category_id = target['ann_id'], target['category_id']
            known = found.get(ann_id, LabelledObject(ann_id, category_id, ()))
            ref_ids = tuple(dict.fromkeys((*known.ref_ids, ref_id)))
            found[ann_id] = LabelledObject(ann_id, category_id, ref_ids)
    folder = dataset.data_prefix['img_path']
    return [
        LabelledImage(
            image_id=image_id,
            path=item['img_path'],
            file_name=os.path.relpath(item['img_path'], folder),
            height=item['height'],
            width=item['width'],
            objects=tuple(objects[image_id][ann_id] for ann_id in sorted(objects[image_id])),
        )
        for image_id, item in sorted(items.items())
    ]


def read_tables(
    path: str | os.PathLike, image: dict[str, Rule], annotation: dict[str, Rule]
) -> tuple[list[dict], list[dict]]:
    """Read images and annotations of a JSON file in COCO's layout, such as this package makes.

    Args:
        path: The file.
        image: Rules of its images, one of their ``id`` among them.
        annotation: Rules of its annotations, one of their ``image_id`` among them.

    Returns:
        Images and annotations.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, an entry breaks a rule, or an annotation is of an image that
            the file lacks.
    """
    content = load_json(path)
    if type(content) is not dict:
        raise fault(path, 'the file', content, 'a dict of images and annotations')
    images, annotations = (content.get(key, MISSING) for key in ('images', 'annotations'))
    for key, records, rules in (
        ('images', images, image),
        ('annotations', annotations, annotation),
    ):
        if type(records) is not list:
            raise fault(path, key, records, 'a list')
        Faults().check(records, rules, path, key[:-1], 'id')
    known = {one['id'] for one in images}
    for position, one in enumerate(annotations):
        if one['image_id'] not in known:
            entry = f'{path}: annotation at position {position}'
            raise fault(entry, 'image_id', one['image_id'], 'the id of an image of the file')
    return images, annotations


def annotation_of(image: LabelledImage, target: LabelledObject, mask: np.ndarray) -> dict:
    """Return the annotation of an object with a mask, as ``instances.json`` has it.

    Args:
        image: Its image.
        target: The object.
        mask: ``(H, W)``, 0 or 1. The segmentation of an empty one is None.
    """
    rle = encode_mask(mask)
    fields = mask_fields(rle)
    return dict(
        id=target.ann_id,
        image_id=image.image_id,
        category_id=target.category_id,
        segmentation=rle if fields['area'] else None,
        iscrowd=0,
        **fields,
    )


def write_annotations(
    path: str | os.PathLike,
    images: Sequence[LabelledImage],
    annotations: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
) -> None:
    """Write an annotation file; it has its name only when it is whole.

    Args:
        path: The file.
        images: All images of the split, also those without an annotation.
        annotations: What :func:`annotation_of` returned.
        info: What made the file, as JSON values.
    """
    categories = sorted({target.category_id for image in images for target in image.objects})
    content = dict(
        info=dict(info, made_by=f'nemo_mmseg {__version__}'),
        images=[
            dict(id=one.image_id, file_name=one.file_name, height=one.height, width=one.width)
            for one in images
        ],
        annotations=list(annotations),
        categories=[dict(id=number) for number in categories],
    )
    write_text(path, json.dumps(content))
