"""Read the files of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO into references.

``refs(*).p`` or ``grefs(*).json`` holds the expressions, ``instances.json`` the annotated objects.
A pickle from the web can run code while it is read, so only one of plain data is admitted. Every
error names the file and the id.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log

from nemo_mmseg.utils.fileio import collector_paused, load_json, load_plain_pickle


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
    """``instances.json``: entries by id, and objects by (image id, category id), crowds not."""

    file: str
    images: dict[int, dict]
    annotations: dict[int, dict]
    num_objects: Counter


class MissingAnnotationError(ValueError):
    """A reference has no annotation."""


@collector_paused()
def load_references(
    split_file: str,
    ann_file: str,
    split: str,
    text_key: str = 'sent',
    errors: list[str] | None = None,
    generalized: bool = False,
    leave_out_unlabelled: bool = False,
) -> list[Reference]:
    """Join the references of one split with their images and annotations.

    Args:
        split_file: ``refs(unc).p``, ``refs(umd).p``, ``refs(google).p`` or ``grefs(unc).json``;
            a name that does not end in ``.json`` is read as a plain pickle.
        ann_file: ``instances.json`` beside it.
        split: ``'train'``, ``'val'``, ``'testA'``, ``'testB'`` or ``'test'``.
        text_key: ``'sent'`` (cleaned, lower case) or ``'raw'`` (as typed).
        errors: Gets a line for each faulty reference, which is then left out. Defaults to None: the
            first one raises.
        generalized: Whether a reference may have several targets or none, as in gRefCOCO. Defaults
            to False.
        leave_out_unlabelled: Whether references whose annotation ``ann_file`` lacks are left out,
            as pseudo masks can lack some. Defaults to False: they are an error.

    Returns:
        The references in the order of the file.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, the split is unknown, a reference lacks its image or
            annotation, an expression is empty, or a segmentation is.
    """
    refs = load_json(split_file) if split_file.endswith('.json') else load_plain_pickle(split_file)
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(f'{split_file} does not hold a list of references')
    chosen = [ref for ref in refs if ref.get('split') == split]
    if not chosen:
        splits = ', '.join(sorted({str(ref.get('split')) for ref in refs}))
        raise ValueError(f'{split_file} has no split {split!r}; it has: {splits}')
    instances = _load_instances(ann_file)
    references, unlabelled = [], []
    for ref in chosen:
        try:
            references.append(_reference(ref, instances, split_file, text_key, generalized))
        except MissingAnnotationError as error:
            unlabelled.append((ref['ref_id'], str(error)))
        except ValueError as error:
            if errors is None:
                raise
            errors.append(str(error))
    _tell_unlabelled(unlabelled, ann_file, len(chosen), errors, leave_out_unlabelled)
    return references


def _tell_unlabelled(
    unlabelled: list[tuple[int, str]],
    ann_file: str,
    total: int,
    errors: list[str] | None,
    leave_out: bool,
) -> None:
    """Name and count the references without annotation, and refuse them unless asked not to."""
    if not unlabelled:
        return
    ids = ', '.join(str(ref_id) for ref_id, _ in unlabelled[:10])
    more = ', ...' if len(unlabelled) > 10 else ''
    count = f'{len(unlabelled)} of {total} references have no annotation in {ann_file}: {ids}{more}'
    if leave_out:
        print_log(f'{count}. They are left out', 'current')
    elif errors is None:
        raise MissingAnnotationError(
            f'{unlabelled[0][1]}. {count}. unlabelled="leave_out" trains without them'
        )
    else:
        errors.extend(error for _, error in unlabelled)


def _load_instances(file: str) -> _Instances:
    tables = load_json(file)
    if not isinstance(tables, dict):
        raise ValueError(f'{file} does not hold images and annotations')
    images = _by_id(tables, 'images', ('file_name', 'height', 'width'), file)
    annotations = _by_id(tables, 'annotations', ('image_id', 'category_id'), file)
    objects = (one for one in annotations.values() if not one.get('iscrowd'))
    num_objects = Counter((one['image_id'], one['category_id']) for one in objects)
    return _Instances(file, images, annotations, num_objects)


def _by_id(tables: dict, name: str, keys: tuple[str, ...], file: str) -> dict[int, dict]:
    found: dict[int, dict] = {}
    required = {'id', *keys}
    for record in _field(tables, name, f'{file}: the file'):
        if not isinstance(record, dict) or not record.keys() >= required:
            number = _field(record, 'id', f'{file}: an entry of {name!r}')
            for key in keys:
                _field(record, key, f'{file}: entry {number} of {name!r}')
        number = record['id']
        if found.setdefault(number, record) is not record and found[number] != record:
            raise ValueError(f'{file}: two different entries of {name!r} have the id {number}')
    return found


def _field(record: Any, key: str, what: str) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f'{what} has no {key!r}')
    return record[key]


def _reference(
    ref: dict, instances: _Instances, split_file: str, text_key: str, generalized: bool
) -> Reference:
    """Join one entry of the split file with its image and annotations."""
    ref_id = _field(ref, 'ref_id', f'{split_file}: a reference')
    what = f'{split_file}: reference {ref_id}'
    image_id, targets = ref.get('image_id'), []
    image = instances.images.get(image_id)
    ann_ids = _annotation_ids(ref, what, generalized)
    if image is None and not ann_ids:
        raise ValueError(f'{what} has image {image_id}, which {instances.file} lacks')
    for ann_id in ann_ids:
        annotation = instances.annotations.get(ann_id)
        if annotation is None:
            raise MissingAnnotationError(
                f'{what} has annotation {ann_id}, which {instances.file} lacks'
            )
        if image is None or annotation['image_id'] != image['id']:
            raise ValueError(
                f'{what} has image {image_id}, annotation {ann_id} has image '
                f'{annotation["image_id"]}; {instances.file} must hold that image'
            )
        targets.append(annotation)
    # As published: a crowd beside other targets is left out.
    targets = [one for one in targets if not one.get('iscrowd')] or targets
    categories = {one['category_id'] for one in targets}
    same = sum(instances.num_objects[image['id'], category] for category in categories)
    sent_ids, expressions = _expressions(ref, ref_id, text_key, split_file)
    return Reference(
        ref_id=int(ref_id),
        image=image,
        annotations=tuple(
            dict(one, segmentation=clean_segmentation(one, instances.file)) for one in targets
        ),
        num_distractors=same - sum(not one.get('iscrowd') for one in targets) if targets else -1,
        sent_ids=sent_ids,
        expressions=expressions,
    )


def _annotation_ids(ref: dict, what: str, generalized: bool) -> list[int]:
    """List the annotations that a reference names; ``[-1]`` stands for none."""
    ann_id = _field(ref, 'ann_id', what)
    if not generalized:
        if isinstance(ann_id, list):
            raise ValueError(f'{what} has a list of targets, {ann_id}: use GRefCOCODataset')
        return [ann_id]
    ann_ids = ann_id if isinstance(ann_id, list) else [ann_id]
    if not all(isinstance(one, int) for one in ann_ids):
        raise ValueError(f'{what} has ann_id {ann_id}, which are no numbers')
    ann_ids = list(dict.fromkeys(ann_ids))
    if ann_ids == [-1]:
        return []
    if not ann_ids or -1 in ann_ids:
        raise ValueError(f'{what} has ann_id {ann_id}; only [-1] stands for no target')
    return ann_ids


def _expressions(
    ref: dict, ref_id: int, text_key: str, file: str
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    sentences = _field(ref, 'sentences', f'{file}: reference {ref_id}')
    if not sentences:
        raise ValueError(f'{file}: reference {ref_id} has no expression')
    sent_ids, expressions = [], []
    for sentence in sentences:
        what = f'{file}: an expression of reference {ref_id}'
        expression = _field(sentence, text_key, what)
        sent_id = _field(sentence, 'sent_id', what)
        if not isinstance(expression, str) or not expression.strip():
            raise ValueError(f'{file}: expression {sent_id} of reference {ref_id} is empty')
        expressions.append(expression.strip())
        sent_ids.append(int(sent_id))
    return tuple(sent_ids), tuple(expressions)


def clean_segmentation(annotation: dict, file: str) -> list | dict:
    """Leave out degenerate polygons of an annotation.

    Args:
        annotation: An entry of ``instances.json``: polygons, compressed RLE (``counts`` a string)
            or uncompressed RLE (``counts`` a list).
        file: File named in an error.

    Returns:
        Polygons of at least three points, or the RLE.

    Raises:
        ValueError: Nothing is left, so the mask would be empty.
    """
    segmentation = annotation.get('segmentation')
    if isinstance(segmentation, dict):
        counts = segmentation.get('counts')
        covers = any(counts[1::2]) if isinstance(counts, list) else bool(counts)
        if covers and segmentation.get('size'):
            return segmentation
    elif segmentation:
        polygons = [points for points in segmentation if len(points) >= 6]
        if polygons:
            return polygons
    raise ValueError(f'{file}: annotation {annotation.get("id")} has an empty segmentation')
