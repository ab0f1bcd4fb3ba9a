"""Reads the files of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO into references.

``refs(*).p`` or ``grefs(*).json`` holds the expressions, ``instances.json`` the annotated objects.
A pickle from the web can run code while it is read, so only one of plain data is admitted. Every
error names the file and the id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def clean_segmentation(annotation: dict, source: str) -> list | dict:
    """Leave out degenerate polygons of an annotation.

    Args:
        annotation: An entry of ``instances.json``: polygons, compressed RLE (``counts`` a string)
            or uncompressed RLE (``counts`` a list).
        source: File named in an error.

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
    raise ValueError(f'{source}: annotation {annotation.get("id")} has an empty segmentation')


def _field(record: dict, key: str, what: str, source: str) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f'{source}: {what} has no {key!r}')
    return record[key]


def _by_id(instances: dict, name: str, keys: tuple[str, ...], source: str) -> dict[int, dict]:
    """Index ``images`` or ``annotations`` of ``instances.json`` by id."""
    found: dict[int, dict] = {}
    required = {'id', *keys}
    for record in _field(instances, name, 'the file', source):
        if not isinstance(record, dict) or not record.keys() >= required:
            number = _field(record, 'id', f'an entry of {name!r}', source)
            for key in keys:
                _field(record, key, f'entry {number} of {name!r}', source)
        number = record['id']
        if found.setdefault(number, record) is not record and found[number] != record:
            raise ValueError(f'{source}: two different entries of {name!r} have the id {number}')
    return found


def _expressions(ref: dict, text_key: str, source: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    ref_id = ref['ref_id']
    sentences = _field(ref, 'sentences', f'reference {ref_id}', source)
    if not sentences:
        raise ValueError(f'{source}: reference {ref_id} has no expression')
    sent_ids, expressions = [], []
    required = {text_key, 'sent_id'}
    for sentence in sentences:
        if not isinstance(sentence, dict) or not sentence.keys() >= required:
            for key in (text_key, 'sent_id'):
                _field(sentence, key, f'an expression of reference {ref_id}', source)
        expression = sentence[text_key]
        if not isinstance(expression, str) or not expression.strip():
            raise ValueError(
                f'{source}: expression {sentence["sent_id"]} of reference {ref_id} is empty'
            )
        expressions.append(expression.strip())
        sent_ids.append(sentence['sent_id'])
    return tuple(map(int, sent_ids)), tuple(expressions)


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
    instances = load_json(ann_file)
    if not isinstance(instances, dict):
        raise ValueError(f'{ann_file} does not hold images and annotations')
    images = _by_id(instances, 'images', ('file_name', 'height', 'width'), ann_file)
    annotations = _by_id(instances, 'annotations', ('image_id', 'category_id'), ann_file)

    of_category: dict[tuple[int, int], int] = {}
    for annotation in annotations.values():
        if not annotation.get('iscrowd'):
            key = annotation['image_id'], annotation['category_id']
            of_category[key] = of_category.get(key, 0) + 1

    chosen = [ref for ref in refs if ref.get('split') == split]
    if not chosen:
        splits = ', '.join(sorted({str(ref.get('split')) for ref in refs}))
        raise ValueError(f'{split_file} has no split {split!r}; it has: {splits}')
    tables = images, annotations, of_category
    references = []
    for ref in chosen:
        try:
            references.append(_reference(ref, *tables, split_file, ann_file, text_key, generalized))
        except ValueError as error:
            if errors is None:
                raise
            errors.append(str(error))
    return references


def _annotation_ids(ref: dict, ref_id: int, source: str, generalized: bool) -> list[int]:
    """List the annotations that a reference names; ``[-1]`` stands for none."""
    ann_id = _field(ref, 'ann_id', f'reference {ref_id}', source)
    if not generalized:
        if isinstance(ann_id, list):
            raise ValueError(
                f'{source}: reference {ref_id} has a list of targets, {ann_id}, '
                'which GRefCOCODataset reads'
            )
        return [ann_id]
    ann_ids = ann_id if isinstance(ann_id, list) else [ann_id]
    if not all(isinstance(one, int) for one in ann_ids):
        raise ValueError(f'{source}: reference {ref_id} has ann_id {ann_id}, which are no numbers')
    ann_ids = list(dict.fromkeys(ann_ids))
    if ann_ids == [-1]:
        return []
    if not ann_ids or -1 in ann_ids:
        raise ValueError(
            f'{source}: reference {ref_id} has ann_id {ann_id}; only [-1] stands for no target'
        )
    return ann_ids


def _reference(
    ref: dict,
    images: dict[int, dict],
    annotations: dict[int, dict],
    of_category: dict[tuple[int, int], int],
    split_file: str,
    ann_file: str,
    text_key: str,
    generalized: bool,
) -> Reference:
    """Join one entry of the split file with its image and annotations."""
    ref_id = _field(ref, 'ref_id', 'a reference', split_file)
    targets = []
    image = images.get(ref.get('image_id'))
    ann_ids = _annotation_ids(ref, ref_id, split_file, generalized)
    if image is None and not ann_ids:
        raise ValueError(
            f'{split_file}: reference {ref_id} has image {ref.get("image_id")}, which {ann_file} '
            'lacks'
        )
    for ann_id in ann_ids:
        annotation = annotations.get(ann_id)
        if annotation is None:
            raise ValueError(
                f'{split_file}: reference {ref_id} has annotation {ann_id}, which {ann_file} lacks'
            )
        if image is None or annotation['image_id'] != image['id']:
            raise ValueError(
                f'{split_file}: reference {ref_id} has image {ref.get("image_id")}, annotation '
                f'{ann_id} has image {annotation["image_id"]}; {ann_file} must hold that image'
            )
        targets.append(annotation)
    # As published: a crowd beside other targets is left out.
    targets = [a for a in targets if not a.get('iscrowd')] or targets
    same = sum(of_category.get((image['id'], c), 0) for c in {a['category_id'] for a in targets})
    sent_ids, expressions = _expressions(ref, text_key, split_file)
    return Reference(
        ref_id=int(ref_id),
        image=image,
        annotations=tuple(dict(a, segmentation=clean_segmentation(a, ann_file)) for a in targets),
        num_distractors=same - sum(not a.get('iscrowd') for a in targets) if targets else -1,
        sent_ids=sent_ids,
        expressions=expressions,
    )
