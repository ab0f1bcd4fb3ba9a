"""Between RefCOCO's layout (and gRefCOCO's) and the JSON form; neither way loses anything.

A reference as RefCOCO has it can be derived from the JSON form but for what annotators typed and
some names. Only what differs from the derived is kept beside: with an expression, or in the list
``references`` of its image.
"""

from __future__ import annotations

import json
import os.path as osp
import pickle
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from nemo_mmseg.utils.annotation_schema import SPLIT, expression_rules, reference_rules
from nemo_mmseg.utils.atomic_write import check_folder_path, write_bytes, write_text
from nemo_mmseg.utils.faults import MISSING, Faults, fault
from nemo_mmseg.utils.fileio import load_json, load_plain_pickle
from nemo_mmseg.utils.images import image_name
from nemo_mmseg.utils.referring_json import (
    ReferringJSON,
    read_referring_json,
    refuse_repeated,
    write_referring_json,
)

from ..segmentation import clean_segmentation, encode_mask, encode_segmentation, read_mask
from .coco import images_with_objects, json_rle, mask_fields, read_coco

# What an image, an object and an expression of the JSON form have that has another place there.
IMAGE_PARTS = ('objects', 'expressions', 'references')
OBJECT_PARTS = ('id', 'category', 'mask', 'segmentation')
EXPRESSION_PARTS = ('id', 'text', 'targets', 'ref_id', 'split')


def refcoco_to_json(split_file: str, ann_file: str, out: str) -> None:
    """Write all splits of a data set in RefCOCO's layout in the JSON form.

    Args:
        split_file: ``refs(*).p``, or ``grefs(*).json``. A reference whose ``source`` is ``'zero'``
            has no target, as in Ref-ZOM.
        ann_file: ``instances.json``.
        out: File to write. A ``.jsonl`` has no place for the table of categories.

    Raises:
        FileNotFoundError: A file is missing.
        DataError: A field holds what it must not.
        ValueError: A file is damaged.
    """
    refs = _read_refs(split_file)
    tables = read_coco(ann_file)
    head, images = images_with_objects(tables)
    categories = {one['id']: one['category_id'] for one in tables['annotations']}
    generalized = any(len(_targets(ref)) != 1 for ref in refs if ref['sentences'])
    for ref in refs:
        entry = f'{split_file}: reference {ref["ref_id"]}'
        image, targets = images.get(ref['image_id']), _targets(ref)
        if image is None:
            allowed = f'the id of an image of {ann_file}'
            raise fault(entry, 'image_id', ref['image_id'], allowed)
        if not {one['id'] for one in image['objects']}.issuperset(targets):
            allowed = f'annotations of image {image["id"]} in {ann_file}'
            raise fault(entry, 'ann_id', ref['ann_id'], allowed)
        for one in ref['sentences']:
            if one.get('exist', True) in (False, 0):
                where = f'{entry}: expression {one["sent_id"]}'
                allowed = 'true: the JSON form has no false expressions; RRefCOCODataset reads them'
                raise fault(where, 'exist', one['exist'], allowed)
        described = [_expression(one, targets, ref) for one in ref['sentences']]
        image['expressions'] += described
        derived = _reference(image, described, categories, generalized) if described else {}
        skip = ['ref_id', 'sentences'] if _are_told(ref['sentences']) else ['ref_id']
        others = _differing(ref, derived, skip)
        if others:
            image.setdefault('references', []).append(dict(id=ref['ref_id'], **others))
    write_referring_json(out, list(images.values()), head)


def json_to_refcoco(file: str, out_dir: str, masks_dir: str | None = None) -> str:
    """Write a file of the JSON form in RefCOCO's layout, or gRefCOCO's.

    Masks that are PNGs become RLEs. An expression without a split is one of ``train``.

    Args:
        file: The file.
        out_dir: Folder that gets ``instances.json``, and ``refs(<name of the file>).p``, or
            ``grefs(<name of the file>).json`` where an expression has several targets or none.
        masks_dir: Folder of the PNGs. Defaults to None: that of the file.

    Returns:
        Name of the file with the references.

    Raises:
        FileNotFoundError: A file is missing.
        DataError: A field holds what it must not.
        ValueError: A file or a mask is damaged, or a mask of another size than its image.
    """
    check_folder_path(out_dir)
    data = read_referring_json(file)
    folder = osp.dirname(file) if masks_dir is None else masks_dir
    annotations = [
        _annotation(one, image, data, folder, f'{file}: image {image["id"]}: object {one["id"]}')
        for image in data.images
        for one in image['objects']
    ]
    refs = _references(data, {one['id']: one['category_id'] for one in annotations})
    instances = dict(
        data.head,
        images=[_without(image, IMAGE_PARTS) for image in data.images],
        annotations=annotations,
        categories=_categories(data, annotations),
    )
    stem = Path(file).stem
    generalized = any(isinstance(ref['ann_id'], list) for ref in refs)
    name = f'grefs({stem}).json' if generalized else f'refs({stem}).p'
    content = json.dumps(refs).encode() if generalized else pickle.dumps(refs, protocol=2)
    write_bytes(Path(out_dir) / name, content)
    write_text(Path(out_dir) / 'instances.json', json.dumps(instances))
    return name


def _read_refs(split_file: str) -> list[dict]:
    refs = load_json(split_file) if split_file.endswith('.json') else load_plain_pickle(split_file)
    if type(refs) is not list:
        raise fault(split_file, 'the file', refs, 'a list of references')
    rules, faults = {**SPLIT, **reference_rules(True)}, Faults()
    known = [dict(ref, ann_id=[-1]) if _is_zero(ref) else ref for ref in refs]
    faults.check(known, rules, split_file, 'reference', 'ref_id')
    entries = [(f'{split_file}: reference {ref["ref_id"]}', ref) for ref in refs]
    refuse_repeated(entries, 'ref_id', faults)
    for entry, ref in entries:
        faults.check(ref['sentences'], expression_rules('sent'), entry, 'expression', 'sent_id')
    return refs


def _is_zero(ref: Any) -> bool:
    return type(ref) is dict and ref.get('source') == 'zero'


def _targets(ref: dict) -> list[int]:
    if _is_zero(ref):
        return []
    numbers = ref['ann_id'] if isinstance(ref['ann_id'], list) else [ref['ann_id']]
    return [number for number in dict.fromkeys(numbers) if number != -1]


def _expression(sentence: dict, targets: list[int], ref: dict) -> dict:
    described = dict(
        id=sentence['sent_id'],
        text=sentence['sent'],
        targets=targets,
        ref_id=ref['ref_id'],
        split=ref['split'],
    )
    return described | _differing(sentence, _sentence(described), EXPRESSION_PARTS)


def _are_told(sentences: list[dict]) -> bool:
    """Whether expressions tell all of some sentences: no field has a name that theirs have."""
    return bool(sentences) and not any(one.keys() & set(EXPRESSION_PARTS) for one in sentences)


def _sentence(described: dict) -> dict:
    text = described['text']
    derived = dict(sent_id=described['id'], sent=text, raw=text, tokens=text.split())
    return derived | _without(described, EXPRESSION_PARTS)


def _reference(
    image: dict, expressions: list[dict], categories: dict[int, int], generalized: bool
) -> dict:
    """Derive a reference, as RefCOCO has it, from its expressions."""
    first = expressions[0]
    targets, name = first['targets'], PurePosixPath(image['file_name'])
    numbers = [categories[target] for target in targets]
    if generalized:
        ann_id, category_id = targets or [-1], numbers or [-1]
    else:
        (ann_id,), (category_id,) = targets, numbers
        name = name.with_name(f'{name.stem}_{ann_id}{name.suffix}')
    return dict(
        ref_id=first['ref_id'],
        ann_id=ann_id,
        image_id=image['id'],
        category_id=category_id,
        split=first['split'] or 'train',
        sentences=[_sentence(one) for one in expressions],
        sent_ids=[one['id'] for one in expressions],
        file_name=str(name),
    )


def _references(data: ReferringJSON, categories: dict[int, int]) -> list[dict]:
    """Return all references by rising id."""
    expressions = [one for image in data.images for one in image['expressions']]
    generalized = any(len(one['targets']) != 1 for one in expressions)
    refs = []
    for image in data.images:
        spoken: dict[int, list[dict]] = {}
        for one in image['expressions']:
            spoken.setdefault(one['ref_id'], []).append(one)
        others = {one['id']: _without(one, ('id',)) for one in image.get('references', ())}
        for ref_id in spoken | others:
            ref = {'ref_id': ref_id}
            if ref_id in spoken:
                ref = _reference(image, spoken[ref_id], categories, generalized)
            refs.append(ref | others.get(ref_id, {}))
    return sorted(refs, key=lambda ref: ref['ref_id'])


def _annotation(
    described: dict, image: dict, data: ReferringJSON, masks_dir: str, entry: str
) -> dict:
    """Turn an object into an annotation of ``instances.json``."""
    annotation = dict(
        id=described['id'],
        image_id=image['id'],
        category_id=data.category_id(described),
        iscrowd=0,
    )
    size = image['height'], image['width']
    if 'mask' in described:
        path = osp.join(masks_dir, image_name(described['mask']))
        try:
            rle = encode_mask(read_mask(path, *size))
        except ValueError as error:
            raise ValueError(f'{entry}: {error}') from error
        annotation.update(segmentation=json_rle(rle), **mask_fields(rle))
    elif 'segmentation' in described:
        annotation['segmentation'] = described['segmentation']
        if not {'bbox', 'area'} <= described.keys():
            clean_segmentation(described['segmentation'], *size, entry)
            annotation.update(mask_fields(encode_segmentation(described['segmentation'], *size)))
    else:
        annotation['area'] = described['bbox'][2] * described['bbox'][3]
    if 'category' not in described:
        annotation['category'] = None  # tells it from a category with number 0
    return annotation | _without(described, OBJECT_PARTS)


def _categories(data: ReferringJSON, annotations: list[dict]) -> list[dict]:
    """Return the table of categories of the file, and below it those that it lacks."""
    table = list(data.head.get('categories', []))
    names = {number: name for name, number in data.category_ids.items()}
    used = {one['category_id'] for one in annotations if 'category' not in one}
    missing = sorted(used - {one['id'] for one in table})
    return table + [
        dict(id=number, name=names[number]) if number in names else dict(id=number)
        for number in missing
    ]


def _differing(record: dict, derived: dict, but: Collection[str] = ()) -> dict:
    """Return the fields that the derived record has otherwise, or not at all."""
    return {
        key: value
        for key, value in record.items()
        if key not in but and derived.get(key, MISSING) != value
    }


def _without(record: dict, keys: Collection[str]) -> dict:
    return {key: value for key, value in record.items() if key not in keys}
