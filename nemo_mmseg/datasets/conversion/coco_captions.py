"""COCO's ``instances.json`` whose annotations carry captions, in the JSON form."""

from __future__ import annotations

from typing import Any

from nemo_mmseg.utils.annotation_schema import ANNOTATION, TEXT
from nemo_mmseg.utils.faults import Faults, Rule
from nemo_mmseg.utils.referring_json import (
    OBJECT,
    refuse_without_expressions,
    write_referring_json,
)

from ..segmentation import clean_segmentation
from .coco import images_with_objects, read_coco


def _are_texts(value: Any) -> bool:
    return TEXT.holds(*(value if type(value) is list else [value]))


CAPTIONS = Rule(f'{TEXT.allowed}, or a list of such', (str, list), also=_are_texts, optional=True)


def coco_captions_to_json(
    ann_file: str, out: str, key: str = 'caption', split: str | None = None
) -> None:
    """Write annotations in COCO's layout, with what each is called, in the JSON form.

    An annotation without a caption is an object that no expression describes: a distractor.

    Args:
        ann_file: ``instances.json``.
        out: File to write.
        key: Field of an annotation that holds its caption, or a list of them. Defaults to
            ``'caption'``.
        split: What the split is called. Defaults to None: the file has no splits.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A field holds what it must not, or no annotation has a caption.
        ValueError: The file is damaged, or the layout gives ``key`` another meaning.
    """
    # Captions leave the annotation, and so would what it needs.
    if key in {**ANNOTATION, **OBJECT}:
        raise ValueError(
            f'captions cannot be in {key!r}: COCO or the JSON form has other things there'
        )
    tables = read_coco(ann_file)
    Faults().check(tables['annotations'], {key: CAPTIONS}, ann_file, 'annotation', 'id')
    head, images = images_with_objects(tables)
    for image in images.values():
        for one in image['objects']:
            captions = one.pop(key, [])
            if captions and 'segmentation' in one:
                size, entry = (
                    (image['height'], image['width']),
                    f'{ann_file}: annotation {one["id"]}',
                )
                clean_segmentation(one['segmentation'], *size, entry)
            image['expressions'] += [
                dict(text=text, targets=[one['id']])
                for text in (captions if type(captions) is list else [captions])
            ]
        if split is not None:
            image['split'] = split
    refuse_without_expressions(list(images.values()), ann_file, f'{key} of annotations')
    write_referring_json(out, list(images.values()), head, ann_file)
