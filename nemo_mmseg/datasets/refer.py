"""Read the files of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO into references.

``refs(*).p`` or ``grefs(*).json`` holds the expressions, ``instances.json`` the annotated objects.
A pickle from the web can run code while it is read, so only one of plain data is admitted. What the
files may hold is in :mod:`nemo_mmseg.utils.annotation_schema`; it is checked here, once. Every
error names file, entry, field, what was found and what is allowed.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log

from nemo_mmseg.utils.annotation_schema import (
    LIST,
    MAX_ENTRIES,
    MAX_SHARED,
    MAX_VALUES,
    SOURCE,
    SPLIT,
    expression_rules,
    reference_rules,
)
from nemo_mmseg.utils.faults import MISSING, DataError, Faults, Rule, all_sound, fault
from nemo_mmseg.utils.fileio import collector_paused, load_json
from nemo_mmseg.utils.images import image_name
from nemo_mmseg.utils.split_file import load_split_file

from .instances import Instances, checked_target, instances_of
from .segmentation import number_of_values


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
        exists: Which expressions are true of the image, where a reference has false ones, too, as
            in R-RefCOCO; those have no target. Defaults to None: all are true.
    """

    ref_id: int
    image: dict
    annotations: tuple[dict, ...]
    num_distractors: int
    sent_ids: tuple[int, ...]
    expressions: tuple[str, ...]
    exists: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Layout:
    """What is read of the files of a data set, and what they may hold.

    Attributes:
        text_key: ``'sent'`` (cleaned, lower case) or ``'raw'`` (as typed). Defaults to ``'sent'``.
        generalized: Whether a reference may have several targets or none, as in gRefCOCO. One
            without any expression is then left out, as published, with a warning. Defaults to
            False.
        existence: Whether ``exist`` of an expression says if it is true of the image, as in
            R-RefCOCO; one without that field is. Defaults to False.
        zero_by_source: Whether ``source`` of a reference says ``'zero'`` if it has no target,
            whatever its annotations are, as in Ref-ZOM. Defaults to False.
        leave_out_unlabelled: Whether references whose annotation is lacking are left out, as pseudo
            masks can lack some. Defaults to False: they are faults.
    """

    text_key: str = 'sent'
    generalized: bool = False
    existence: bool = False
    zero_by_source: bool = False
    leave_out_unlabelled: bool = False


REFCOCO = Layout()


@collector_paused()
def load_references(
    split_file: str,
    ann_file: str,
    split: str,
    layout: Layout = REFCOCO,
    errors: list[str] | None = None,
) -> list[Reference]:
    """Join the references of one split with their images and annotations.

    Of the split file, the references of the split are checked; of ``instances.json``, every image
    and annotation, and the segmentations of the targets.

    Args:
        split_file: ``refs(unc).p``, ``refs(umd).p``, ``refs(google).p`` or ``grefs(unc).json``;
            a name that does not end in ``.json`` is read as a plain pickle.
        ann_file: ``instances.json`` beside it.
        split: ``'train'``, ``'val'``, ``'testA'``, ``'testB'`` or ``'test'``.
        layout: Defaults to RefCOCO's.
        errors: Gets a line for each fault; the faulty entry is left out. Defaults to None: the
            first fault raises.

    Returns:
        The references in the order of the file.

    Raises:
        FileNotFoundError: A file is missing.
        DataError: A field holds what it must not.
        ValueError: A file is damaged, the split is unknown, or nothing of it is left.
    """
    refs = load_split_file(split_file)
    faults, where = Faults(errors), f'{split_file}, split {split}'
    chosen = _of_split(refs, split_file, split, faults)
    if layout.zero_by_source:
        chosen = _without_targets_of_zero(chosen, where, faults)
    return join_references(chosen, load_json(ann_file), where, ann_file, layout, errors)


def join_references(
    chosen: list[dict],
    tables: Any,
    where: str,
    ann_file: str,
    layout: Layout = REFCOCO,
    errors: list[str] | None = None,
) -> list[Reference]:
    """Join references with their images and annotations, all in memory.

    Args:
        chosen: The references of one split, as the split file has them.
        tables: ``images`` and ``annotations``, as ``instances.json`` has them.
        where: File and split, for messages.
        ann_file: Where the tables come from, for messages.
        layout: Defaults to RefCOCO's.
        errors: See :func:`load_references`.

    Returns:
        The references in their order.

    Raises:
        DataError: A field holds what it must not.
        ValueError: Nothing is left.
    """
    faults = Faults(errors)
    instances = instances_of(tables, ann_file, faults)
    sound = faults.check(chosen, reference_rules(layout.generalized), where, 'reference', 'ref_id')
    chosen = [ref for ref, is_sound in zip(chosen, sound) if is_sound]
    spoken = [ref for ref in chosen if ref['sentences']]
    if len(spoken) < len(chosen):
        count = len(chosen) - len(spoken)
        warnings.warn(f'{where}: {count} references without an expression are left out')
    spoken = _labelled(spoken, instances, where, layout.leave_out_unlabelled, errors)
    references, values = [], 0
    rules = expression_rules(layout.text_key, layout.existence)
    for ref, is_sound in zip(spoken, _sound_expressions(spoken, where, rules, faults)):
        targets = _targets(ref, instances, where, faults)
        if is_sound and targets is not None:
            references.append(_reference(ref, targets, instances, layout))
            values += sum(map(len, references[-1].expressions))
            values += sum(number_of_values(one['segmentation']) for one in targets)
            if values > MAX_VALUES:
                what = 'the number of characters of expressions and of numbers of segmentations'
                raise fault(where, what, values, f'at most {MAX_VALUES} in all')
    if not references:
        raise ValueError(f'{where}: no reference is left')
    if errors is None:  # else the caller lists them, with all that have them
        strict = not (layout.generalized or layout.existence)
        _look_for_repeated_ids(references, where, strict)
    return references


def _look_for_repeated_ids(references: list[Reference], where: str, strict: bool) -> None:
    """Refuse references of one id, and warn of expressions of one id.

    Masks that are made, and measures by reference, are kept by the id of a reference; a bank by
    that of an expression, and mining refuses two of one. What REFER's layout promises may not hold
    of its relatives: there both are warnings.

    Raises:
        DataError: Two references have one id, and it is strict.
    """
    ref_ids = Counter(reference.ref_id for reference in references)
    sent_ids = Counter(number for reference in references for number in reference.sent_ids)
    for key, counts in (('ref_id', ref_ids), ('sent_id', sent_ids)):
        repeated = [number for number, count in counts.items() if count > 1]
        if repeated and strict and key == 'ref_id':
            allowed = f'an id of one reference; {counts[repeated[0]]} have it'
            raise fault(f'{where}: reference {repeated[0]}', key, repeated[0], allowed)
        if repeated:
            warnings.warn(
                f'{where}: {len(repeated)} values of {key} are those of several entries, the '
                f'first: {repeated[0]}'
            )


def _labelled(
    refs: list[dict], instances: Instances, where: str, leave_out: bool, errors: list[str] | None
) -> list[dict]:
    """Leave out references without annotation, or count them in one error."""
    unlabelled = [ref for ref in refs if _missing_annotations(ref, instances)]
    if unlabelled and leave_out:
        print_log(f'{_count(unlabelled, refs, instances)}. They are left out', 'current')
        return [ref for ref in refs if not _missing_annotations(ref, instances)]
    if len(unlabelled) > 1 and errors is None:
        raise DataError(
            f'{where}: {_count(unlabelled, refs, instances)}. With unlabelled="leave_out", the '
            'data set leaves them out'
        )
    return refs


def _missing_annotations(ref: dict, instances: Instances) -> bool:
    """Tell whether a reference names an annotation that there is not."""
    ann_ids = ref['ann_id'] if isinstance(ref['ann_id'], list) else [ref['ann_id']]
    return any(ann_id != -1 and ann_id not in instances.annotations for ann_id in ann_ids)


def _count(unlabelled: list[dict], refs: list[dict], instances: Instances) -> str:
    """Count and name references without annotation."""
    ids = ', '.join(str(ref['ref_id']) for ref in unlabelled[:10])
    ids += ', ...' if len(unlabelled) > 10 else ''
    return (
        f'{len(unlabelled)} of {len(refs)} references have no annotation in {instances.file}: {ids}'
    )


def _of_split(refs: list, file: str, split: str, faults: Faults) -> list[dict]:
    sound = faults.check(refs, SPLIT, file, 'reference', 'ref_id')
    refs = [ref for ref, is_sound in zip(refs, sound) if is_sound]
    chosen = [ref for ref in refs if ref['split'] == split]
    if not chosen:
        splits = sorted({ref['split'] for ref in refs})[:20]
        names = ', '.join(repr(name[:30])[1:-1] for name in splits)
        raise ValueError(f'{file} has no split {split!r}; it has: {names}')
    lists = [ref.get(key) for ref in chosen for key in ('sentences', 'ann_id')]
    lists = [one for one in lists if LIST.holds(one)]
    entries = sum(map(len, lists))
    shared = entries - sum({id(one): len(one) for one in lists}.values())
    for number, most, what in (
        (entries, MAX_ENTRIES, f'the number of expressions and targets of split {split}'),
        (shared, MAX_SHARED, f'the number of those in lists that references of {split} share'),
    ):
        if number > most:
            raise fault(file, what, number, f'at most {most}')
    return chosen


def _without_targets_of_zero(refs: list[dict], file: str, faults: Faults) -> list[dict]:
    """Take the annotations from references whose source says that they have no target."""
    sound = faults.check(refs, SOURCE, file, 'reference', 'ref_id')
    refs = [ref for ref, is_sound in zip(refs, sound) if is_sound]
    return [dict(ref, ann_id=[-1]) if ref['source'] == 'zero' else ref for ref in refs]


def _sound_expressions(
    refs: list[dict], file: str, rules: dict[str, Rule], faults: Faults
) -> list[bool]:
    """Tell which references have sound expressions only."""
    # All at once is much faster than one reference at a time, which names the faulty one.
    if all_sound([sentence for ref in refs for sentence in ref['sentences']], rules):
        return [True] * len(refs)
    sound = []
    for ref in refs:
        entry = f'{file}: reference {ref["ref_id"]}'
        sound.append(all(faults.check(ref['sentences'], rules, entry, 'expression', 'sent_id')))
    return sound


def _reference(ref: dict, targets: list[dict], instances: Instances, layout: Layout) -> Reference:
    """Join one entry of the split file with its image and annotations."""
    image, sentences = instances.images[ref['image_id']], ref['sentences']
    exists = None
    if layout.existence:
        exists = tuple([bool(one.get('exist', True)) for one in sentences])
    image['file_name'] = image_name(image['file_name'])
    categories = {one['category_id'] for one in targets}
    same = sum(instances.num_objects[image['id'], category] for category in categories)
    return Reference(
        ref_id=ref['ref_id'],
        image=image,
        annotations=tuple(targets),
        num_distractors=same - sum(not one.get('iscrowd') for one in targets) if targets else -1,
        sent_ids=tuple([sentence['sent_id'] for sentence in sentences]),
        expressions=tuple([sentence[layout.text_key].strip() for sentence in sentences]),
        exists=exists,
    )


def _targets(ref: dict, instances: Instances, file: str, faults: Faults) -> list[dict] | None:
    """Look up the annotations that a reference names; None if it, or one of them, is faulty."""
    entry = f'{file}: reference {ref["ref_id"]}'
    image_id, ann_ids = ref['image_id'], ref['ann_id']
    ann_ids = [ann_ids] if isinstance(ann_ids, int) else dict.fromkeys(ann_ids)
    image = instances.images.get(image_id, MISSING)
    if image is MISSING:
        faults.add(fault(entry, 'image_id', image_id, f'the id of an image of {instances.file}'))
    targets = []
    for ann_id in ann_ids:
        if ann_id == -1:  # alone, or the schema would have refused it
            continue
        one = instances.annotations.get(ann_id, MISSING)
        if one is MISSING:
            allowed = f'the id of an annotation of {instances.file} (unlabelled="leave_out" '
            allowed += 'leaves out references that have none)'
            faults.add(fault(entry, 'ann_id', ann_id, allowed))
        elif one and one['image_id'] != image_id:
            allowed = f'{one["image_id"]}, the image of annotation {ann_id}'
            faults.add(fault(entry, 'image_id', image_id, allowed))
            one = None
        targets.append(one)
    # None is an entry whose own fault is noted.
    if not image or not all(targets):
        return None
    # As published: a crowd beside other targets is left out.
    targets = [one for one in targets if not one.get('iscrowd')] or targets
    cleaned = [checked_target(one, image, instances, faults) for one in targets]
    return cleaned if all(cleaned) else None
