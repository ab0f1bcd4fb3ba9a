"""Read the files of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO into references.

``refs(*).p`` or ``grefs(*).json`` holds the expressions, ``instances.json`` the annotated objects.
A pickle from the web can run code while it is read, so only one of plain data is admitted. What the
files may hold is in :mod:`nemo_mmseg.datasets.annotation_schema`; it is checked here, once. Every
error names file, entry, field, what was found and what is allowed.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from nemo_mmseg.utils.faults import MISSING, DataError, Faults, Rule, fault
from nemo_mmseg.utils.fileio import collector_paused, load_json, load_plain_pickle

from .annotation_schema import (
    ANNOTATION,
    ID,
    IMAGE,
    LIST,
    MAX_ENTRIES,
    SPLIT,
    expression_rules,
    reference_rules,
)
from .segmentation import clean_segmentation


@dataclass(frozen=True)
class Reference:
    """A referent and its expressions.

    Attributes:
        ref_id: Id of the reference.
        image: The image's entry in ``instances.json`` (id, file_name, height, width).
        annotations: The annotations of the targets: one in RefCOCO, any number in gRefCOCO.
        num_distractors: Other annotated objects of the targets' categories in the image; -1 for no
            target.
        sent_ids: Ids of the expressions.
        expressions: The expressions.
    """

    ref_id: int
    image: dict
    annotations: tuple[dict, ...]
    num_distractors: int
    sent_ids: tuple[int, ...]
    expressions: tuple[str, ...]


@dataclass(frozen=True)
class _Instances:
    """``instances.json``: entries by id, and objects by (image id, category id), crowds not.

    An entry that was found faulty is None, so that a reference of it is not a second fault.
    """

    file: str
    images: dict[int, dict | None]
    annotations: dict[int, dict | None]
    num_objects: Counter
    targets: dict[int, dict | None] = field(default_factory=dict)  # with clean segmentations


@collector_paused()
def load_references(
    split_file: str,
    ann_file: str,
    split: str,
    text_key: str = 'sent',
    errors: list[str] | None = None,
    generalized: bool = False,
) -> list[Reference]:
    """Join the references of one split with their images and annotations.

    Of the split file, the references of the split are checked; of ``instances.json``, every image
    and annotation, and the segmentations of the targets.

    Args:
        split_file: ``refs(unc).p``, ``refs(umd).p``, ``refs(google).p`` or ``grefs(unc).json``;
            a name that does not end in ``.json`` is read as a plain pickle.
        ann_file: ``instances.json`` beside it.
        split: ``'train'``, ``'val'``, ``'testA'``, ``'testB'`` or ``'test'``.
        text_key: ``'sent'`` (cleaned, lower case) or ``'raw'`` (as typed).
        errors: Gets a line for each fault; the faulty entry is left out. Defaults to None: the
            first fault raises.
        generalized: Whether a reference may have several targets or none, as in gRefCOCO. One
            without any expression is then left out, as published, with a warning. Defaults to
            False.

    Returns:
        The references in the order of the file.

    Raises:
        FileNotFoundError: A file is missing.
        DataError: A field holds what it must not.
        ValueError: A file is damaged, the split is unknown, or nothing of it is left.
    """
    faults = Faults(errors)
    refs = load_json(split_file) if split_file.endswith('.json') else load_plain_pickle(split_file)
    chosen = _of_split(refs, split_file, split, faults)
    instances = _load_instances(ann_file, faults)
    rules = reference_rules(generalized)
    references, speechless = [], 0
    for row, ref in chosen:
        if not faults.check(ref, rules, split_file, 'reference', row, 'ref_id'):
            continue
        if not ref['sentences']:
            speechless += 1
        elif reference := _reference(ref, instances, split_file, text_key, faults):
            references.append(reference)
    if speechless:
        warnings.warn(
            f'{split_file}, split {split}: {speechless} references without an expression are left '
            'out'
        )
    if not references:
        raise ValueError(f'{split_file}: no reference of split {split!r} is left')
    return references


def _of_split(refs: Any, file: str, split: str, faults: Faults) -> list[tuple[int, dict]]:
    """Choose the references of a split, each with its position in the file."""
    if type(refs) is not list:
        raise fault(file, 'the file', refs, 'a list of references')
    sound = [
        (row, ref)
        for row, ref in enumerate(refs)
        if faults.check(ref, SPLIT, file, 'reference', row, 'ref_id')
    ]
    chosen = [(row, ref) for row, ref in sound if ref['split'] == split]
    if not chosen:
        splits = sorted({ref['split'] for _, ref in sound})[:20]
        names = ', '.join(repr(name[:30])[1:-1] for name in splits)
        raise ValueError(f'{file} has no split {split!r}; it has: {names}')
    lists = [ref.get(key) for _, ref in chosen for key in ('sentences', 'ann_id')]
    entries = sum(len(one) for one in lists if LIST.holds(one))
    if entries > MAX_ENTRIES:
        what = f'the number of expressions and targets of split {split}'
        raise fault(file, what, entries, f'at most {MAX_ENTRIES}')
    return chosen


def _load_instances(file: str, faults: Faults) -> _Instances:
    tables = load_json(file)
    if type(tables) is not dict:
        raise fault(file, 'the file', tables, 'a dict of images and annotations')
    images = _by_id(tables, 'images', IMAGE, file, faults)
    annotations = _by_id(tables, 'annotations', ANNOTATION, file, faults)
    objects = (one for one in annotations.values() if one and not one.get('iscrowd'))
    num_objects = Counter((one['image_id'], one['category_id']) for one in objects)
    return _Instances(file, images, annotations, num_objects)


def _by_id(
    tables: dict, name: str, rules: dict[str, Rule], file: str, faults: Faults
) -> dict[int, dict | None]:
    records = tables.get(name, MISSING)
    if type(records) is not list:
        raise fault(file, name, records, 'a list')
    kind, found = name[:-1], {}
    for row, record in enumerate(records):
        if faults.check(record, rules, file, kind, row, 'id'):
            number = record['id']
            if found.setdefault(number, record) is not record:
                if not _equal(found[number], record):
                    allowed = 'an id of one entry; two different ones have it'
                    faults.add(fault(f'{file}: {kind} {number}', 'id', number, allowed))
        elif type(record) is dict and ID.holds(record.get('id')):
            found.setdefault(record['id'], None)
    return found


def _equal(one: Any, other: Any) -> bool:
    try:
        return one == other
    except RecursionError:  # of JSON that is nested deeply in a field that is not read
        return False


def _reference(
    ref: dict, instances: _Instances, split_file: str, text_key: str, faults: Faults
) -> Reference | None:
    """Join one entry of the split file with its image and annotations; None if it is faulty."""
    entry = f'{split_file}: reference {ref["ref_id"]}'
    rules = expression_rules(text_key)
    sound = [
        faults.check(sentence, rules, entry, 'expression', row, 'sent_id')
        for row, sentence in enumerate(ref['sentences'])
    ]
    targets = _targets(ref, instances, entry, faults)
    if targets is None or not all(sound):
        return None
    image_id = ref['image_id']
    categories = {one['category_id'] for one in targets}
    same = sum(instances.num_objects[image_id, category] for category in categories)
    return Reference(
        ref_id=ref['ref_id'],
        image=instances.images[image_id],
        annotations=tuple(targets),
        num_distractors=same - sum(not one.get('iscrowd') for one in targets) if targets else -1,
        sent_ids=tuple([sentence['sent_id'] for sentence in ref['sentences']]),
        expressions=tuple([sentence[text_key].strip() for sentence in ref['sentences']]),
    )


def _targets(ref: dict, instances: _Instances, entry: str, faults: Faults) -> list[dict] | None:
    """Look up the annotations that a reference names; None if it, or one of them, is faulty."""
    ann_ids = ref['ann_id'] if LIST.holds(ref['ann_id']) else [ref['ann_id']]
    ann_ids = [] if ann_ids[0] == -1 else list(dict.fromkeys(ann_ids))
    image_id = ref['image_id']
    image = instances.images.get(image_id, MISSING)
    if image is MISSING:
        faults.add(fault(entry, 'image_id', image_id, f'the id of an image of {instances.file}'))
    targets = []
    for ann_id in ann_ids:
        one = instances.annotations.get(ann_id, MISSING)
        if one is MISSING:
            allowed = f'the id of an annotation of {instances.file}'
            faults.add(fault(entry, 'ann_id', ann_id, allowed))
        elif one and one['image_id'] != image_id:
            allowed = f'{one["image_id"]}, that of annotation {ann_id}'
            faults.add(fault(entry, 'image_id', image_id, allowed))
        elif one:
            targets.append(one)
    if not isinstance(image, dict) or len(targets) < len(ann_ids):
        return None
    # As published: a crowd beside other targets is left out.
    targets = [one for one in targets if not one.get('iscrowd')] or targets
    cleaned = [_with_clean_segmentation(one, image, instances, faults) for one in targets]
    return None if any(one is None for one in cleaned) else cleaned


def _with_clean_segmentation(
    annotation: dict, image: dict, instances: _Instances, faults: Faults
) -> dict | None:
    """Check the segmentation of a target, once; None if it is faulty."""
    number = annotation['id']
    if number not in instances.targets:
        instances.targets[number] = None
        entry = f'{instances.file}: annotation {number}'
        try:
            clean = clean_segmentation(
                annotation.get('segmentation', MISSING), image['height'], image['width'], entry
            )
            instances.targets[number] = dict(annotation, segmentation=clean)
        except DataError as error:
            faults.add(error)
    return instances.targets[number]
