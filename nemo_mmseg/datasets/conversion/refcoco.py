"""Between RefCOCO's layout (and gRefCOCO's) and the JSON form; neither way loses anything.

A reference as RefCOCO has it can be derived from the JSON form but for what annotators typed and
some names. Only what differs from the derived is kept beside: with an expression, or in the list
``references`` of its image.
"""

from __future__ import annotations

import errno
import json
import os.path as osp
import pickle
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from nemo_mmseg.utils.annotation_schema import SPLIT, expression_rules, reference_rules
from nemo_mmseg.utils.atomic_write import atomic_write, check_folder_path
from nemo_mmseg.utils.faults import MISSING, Faults, fault, told_by
from nemo_mmseg.utils.images import image_name
from nemo_mmseg.utils.referring_json import (
    ReferringJSON,
    read_referring_json,
    refuse_repeated,
    write_referring_json,
)
from nemo_mmseg.utils.rle import encode_mask, mask_fields
from nemo_mmseg.utils.split_file import load_split_file

from ..segmentation import read_mask
from .coco import check_coco, images_with_objects, measured, read_coco, refuse_names

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
    refs = load_split_file(split_file)
    _check_refs(refs, split_file)
    tables = read_coco(ann_file)
    head, images = images_with_objects(tables)
    categories = {one['id']: one['category_id'] for one in tables['annotations']}
    generalized = any(len(_targets(ref)) != 1 for ref in refs if ref['sentences'])
    objects = {number: image['objects'] for number, image in images.items()}
    _check_objects(refs, objects, split_file, ann_file)
    for ref in refs:
        entry = f'{split_file}: reference {ref["ref_id"]}'
        refuse_names(ref, ('id',), entry)
        image, targets = images[ref['image_id']], _targets(ref)
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
    write_referring_json(out, list(images.values()), head, ann_file)


def json_to_refcoco(file: str, out_dir: str, masks_dir: str | None = None) -> str:
    """Write a file of the JSON form in RefCOCO's layout, or gRefCOCO's.

    Masks that are PNGs become RLEs. An expression without a split is one of ``train``. Files that
    are there are not replaced.

    Args:
        file: The file.
        out_dir: Folder that gets ``instances.json``, and ``refs(<name of the file>).p``, or
            ``grefs(<name of the file>).json`` where an expression has several targets or none.
        masks_dir: Folder of the PNGs. Defaults to None: that of the file.

    Returns:
        Name of the file with the references.

    Raises:
        FileExistsError: The folder has one of the files.
        FileNotFoundError: A file is missing.
        DataError: A field holds what it must not.
        ValueError: A file or a mask is damaged, or a mask of another size than its image.
    """
    check_folder_path(out_dir)
    stem = Path(file).stem
    refuse_present(out_dir, 'instances.json', f'refs({stem}).p', f'grefs({stem}).json')
    data = read_referring_json(file)
    refuse_names(data.head, ('annotations',), file)
    folder = osp.dirname(file) if masks_dir is None else masks_dir
    annotations = [
        _annotation(one, image, data, folder, f'{file}: image {image["id"]}: object {one["id"]}')
        for image in data.images
        for one in image['objects']
    ]
    instances = dict(
        data.head,
        images=[_without(image, IMAGE_PARTS) for image in data.images],
        annotations=annotations,
        categories=_categories(data, annotations),
    )
    check_coco(instances, file)
    refs = _references(data, {one['id']: one['category_id'] for one in annotations}, file)
    generalized = any(isinstance(ref['ann_id'], list) for ref in refs)
    name = f'grefs({stem}).json' if generalized else f'refs({stem}).p'
    write_refcoco(out_dir, name, refs, instances)
    return name


def write_refcoco(folder: str, name: str, refs: list[dict], instances: dict) -> None:
    """Write both files of RefCOCO's layout; they get their names when both are written.

    Args:
        folder: Gets the files, made if missing.
        name: Of the file with the references, ``refs(*).p`` or ``grefs(*).json``.
        refs: The references.
        instances: The content of ``instances.json``.
    """
    is_json = name.endswith('.json')
    content = json.dumps(refs).encode() if is_json else pickle.dumps(refs, protocol=2)
    table = Path(folder) / 'instances.json'
    with atomic_write(Path(folder) / name) as refs_part, atomic_write(table) as table_part:
        refs_part.write_bytes(content)
        table_part.write_text(json.dumps(instances), 'utf-8')


def refuse_present(folder: str, *names: str) -> None:
    """Refuse to replace files, before work is done for them.

    Args:
        folder: That of the files.
        names: Their names.

    Raises:
        FileExistsError: There is one.
    """
    for name in names:
        if (Path(folder) / name).exists():
            message = 'the converter replaces no files; name another folder. This is there'
            raise FileExistsError(errno.EEXIST, message, osp.join(folder, name))


def _check_refs(refs: list, file: str) -> None:
    rules, faults = {**SPLIT, **reference_rules(True)}, Faults()
    known = [dict(ref, ann_id=[-1]) if _is_zero(ref) else ref for ref in refs]
    faults.check(known, rules, file, 'reference', 'ref_id')
    entries = [(f'{file}: reference {ref["ref_id"]}', ref) for ref in refs]
    refuse_repeated(entries, 'ref_id', faults)
    for entry, ref in entries:
        faults.check(ref['sentences'], expression_rules('sent'), entry, 'expression', 'sent_id')
    sentences = [
        (f'{entry}: expression {one["sent_id"]}', one)
        for entry, ref in entries
        for one in ref['sentences']
    ]
    refuse_repeated(sentences, 'sent_id', faults)


def _check_objects(
    refs: list[dict], objects: dict[int, list[dict]], split_file: str, ann_file: str
) -> None:
    """Refuse references of images that there are not, or of objects that their images lack.

    Args:
        refs: The references.
        objects: Those of each image, by its id.
        split_file: Where the references come from, for messages.
        ann_file: Where the objects come from, for messages.
    """
    for ref in refs:
        entry, number = f'{split_file}: reference {ref["ref_id"]}', ref['image_id']
        if number not in objects:
            raise fault(entry, 'image_id', number, f'the id of an image of {ann_file}')
        if not {one['id'] for one in objects[number]}.issuperset(_targets(ref)):
            allowed = f'annotations of image {number} in {ann_file}'
            raise fault(entry, 'ann_id', ref['ann_id'], allowed)


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


def _references(data: ReferringJSON, categories: dict[int, int], file: str) -> list[dict]:
    """Return all references by rising id, checked."""
    expressions = [one for image in data.images for one in image['expressions']]
    generalized = any(len(one['targets']) != 1 for one in expressions)
    refs = []
    for image in data.images:
        where = f'{file}: image {image["id"]}'
        spoken: dict[int, list[dict]] = {}
        for one in image['expressions']:
            refuse_names(one, ('sent_id', 'sent'), f'{where}: expression {one["id"]}')
            spoken.setdefault(one['ref_id'], []).append(one)
        told = [(f'{where}: reference {one["id"]}', one) for one in image.get('references', ())]
        refuse_repeated(told, 'id', Faults())
        for entry, one in told:
            refuse_names(one, ('ref_id',), entry)
            if one.get('image_id', image['id']) != image['id']:
                raise fault(entry, 'image_id', one['image_id'], f'{image["id"]}, its image')
        others = {one['id']: _without(one, ('id',)) for _, one in told}
        for ref_id in spoken | others:
            ref = {'ref_id': ref_id}
            if ref_id in spoken:
                ref = _reference(image, spoken[ref_id], categories, generalized)
            refs.append(ref | others.get(ref_id, {}))
    _check_refs(refs, file)
    _check_objects(refs, {image['id']: image['objects'] for image in data.images}, file, file)
    return sorted(refs, key=lambda ref: ref['ref_id'])


def _annotation(
    described: dict, image: dict, data: ReferringJSON, masks_dir: str, entry: str
) -> dict:
    """Turn an object into an annotation of ``instances.json``."""
    refuse_names(described, ('image_id', 'category_id'), entry)
    annotation = dict(
        id=described['id'],
        image_id=image['id'],
        category_id=data.category_id(described),
        iscrowd=0,
    )
    size = image['height'], image['width']
    if 'mask' in described:
        path = osp.join(masks_dir, image_name(described['mask']))
        with told_by(entry):
            rle = encode_mask(read_mask(path, *size))
        annotation.update(segmentation=rle, **mask_fields(rle))
    elif 'segmentation' in described:
        annotation['segmentation'] = described['segmentation']
        if not {'bbox', 'area'} <= described.keys():
            annotation.update(measured(described['segmentation'], *size, entry))
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
