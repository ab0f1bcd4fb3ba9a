"""Predicted masks as annotations: in RefCOCO's layout, and in the JSON form of referring data.

An object has one mask: of those predicted for its expressions, the one with the highest score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from nemo_mmseg.datasets.conversion.refcoco import refuse_present, write_refcoco
from nemo_mmseg.datasets.segmentation import clean_segmentation
from nemo_mmseg.evaluation.predictions_schema import FLAG, MASKED, PREDICTIONS, load_predictions
from nemo_mmseg.utils.annotation_schema import BOX, ID, SPLIT, TEXT, reference_rules
from nemo_mmseg.utils.atomic_write import check_folder_path
from nemo_mmseg.utils.faults import MISSING, Faults, Rule, fault
from nemo_mmseg.utils.referring_json import write_referring_json
from nemo_mmseg.utils.split_file import load_split_file
from nemo_mmseg.version import __version__

RULES = {**MASKED, 'expression': TEXT, 'predicted_no_target': FLAG}
SENT_IDS = Rule('a list of ids, whole numbers', (list,), also=lambda value: ID.holds(*value))


def predictions_to_refcoco(
    results: str, split_file: str, out_dir: str, images_dir: str | None = None
) -> tuple[int, int]:
    """Write the predictions of a run in RefCOCO's layout.

    References whose masks are all empty are left out. Files that are there are not replaced.

    Args:
        results: Folder with ``predictions.json``, of ``tools/test.py --out``.
        split_file: ``refs(*).p`` of the data that was predicted.
        out_dir: Folder that gets ``instances.json`` and a file of the split file's name, made if
            missing.
        images_dir: See :func:`image_names`. Defaults to None.

    Returns:
        Numbers of the references that were written and of those left out.

    Raises:
        FileExistsError: The folder has one of the files.
        FileNotFoundError: A file is missing.
        DataError: A field holds what it must not, or an image is not in the folder.
        ValueError: A file is damaged, the predictions are not of these references, or two images
            have one name.
    """
    check_folder_path(out_dir)
    name = Path(split_file).name
    refuse_present(out_dir, 'instances.json', name)
    source = str(Path(results) / PREDICTIONS)
    content = load_predictions(source, MASKED)
    refs = _references(split_file)
    names = image_names(content['predictions'], images_dir, source)
    for one in content['predictions']:
        ref = refs.get(one['ref_id'], {})
        if one['sent_id'] not in ref.get('sent_ids', ()) or one['image_id'] != ref['image_id']:
            raise ValueError(
                f'{source} is not of the data of {split_file}: expression {one["sent_id"]} is none '
                f'of its reference {one["ref_id"]}, of image {one["image_id"]}'
            )
    drawn = [one for one in content['predictions'] if one['area']]
    best = best_masks(drawn, source, lambda one: refs[one['ref_id']]['ann_id'])
    images = {one['image_id']: _image(one, names) for one in drawn}
    kept = {one['ref_id'] for one in drawn}
    labelled = [ref for ref_id, ref in refs.items() if ref_id in kept]
    categories = {ref['ann_id']: ref['category_id'] for ref in labelled}
    instances = dict(
        info=dict(_info(content, source), split_file=split_file),
        images=[images[number] for number in sorted(images)],
        annotations=[
            dict(id=number, image_id=image, category_id=categories[number], iscrowd=0, **mask)
            for number, (image, mask) in best.items()
        ],
        categories=[dict(id=number) for number in sorted(set(categories.values()))],
    )
    write_refcoco(out_dir, name, labelled, instances)
    return len(kept), len({one['ref_id'] for one in content['predictions']} - kept)


def predictions_to_json(
    results: str, out: str, images_dir: str | None = None, split: str | None = None
) -> tuple[int, int]:
    """Write the predictions of a run in the JSON form.

    Expressions keep their ids. Those whose masks are all empty are left out, but for those of which
    the network says that there is no target.

    Args:
        results: Folder with ``predictions.json``, of ``tools/test.py --out``.
        out: File to write.
        images_dir: See :func:`image_names`. Defaults to None.
        split: What the split is called. Defaults to None: the file has no splits.

    Returns:
        Numbers of the expressions that were written and of those left out.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A field holds what it must not, or an image is not in the folder.
        ValueError: The file is damaged, or two images have one name.
    """
    source = str(Path(results) / PREDICTIONS)
    content = load_predictions(source, RULES)
    names = image_names(content['predictions'], images_dir, source)
    drawn = [
        one for one in content['predictions'] if one['area'] and not one.get('predicted_no_target')
    ]
    best = best_masks(drawn, source, lambda one: one['ref_id'])
    images: dict[int, dict] = {}
    written = 0
    for one in content['predictions']:
        is_empty = bool(one.get('predicted_no_target'))
        if not is_empty and one['ref_id'] not in best:
            continue
        made = _image(one, names) | ({} if split is None else {'split': split})
        image = images.setdefault(one['image_id'], dict(made, objects=[], expressions=[]))
        targets = [] if is_empty else [one['ref_id']]
        expression = dict(id=one['sent_id'], text=one['expression'].strip(), targets=targets)
        image['expressions'].append(expression)
        written += 1
    for ref_id, (image_id, mask) in best.items():
        images[image_id]['objects'].append(dict(id=ref_id, **mask))
    head = dict(info=_info(content, source))
    write_referring_json(out, [images[number] for number in sorted(images)], head)
    return written, len(content['predictions']) - written


def best_masks(
    records: Iterable[dict], source: str, object_of: Callable[[dict], int]
) -> dict[int, tuple[int, dict]]:
    """Find the mask of each object that was predicted with the highest score.

    Args:
        records: Predictions whose masks are not empty. All are checked.
        source: Their file, for messages.
        object_of: Returns the id of the object of a prediction.

    Returns:
        By rising id of the object, the id of its image, and ``segmentation``, ``area``, ``bbox``
        and ``score``.

    Raises:
        DataError: A field holds what it must not.
    """
    best = {}
    # By rising score, so that the best one comes last.
    for one in sorted(records, key=lambda one: one.get('score', 0)):
        entry, box = f'{source}: prediction {one["sent_id"]}', one.get('bbox', MISSING)
        if box is MISSING or not BOX.holds(box):
            raise fault(entry, 'bbox', box, BOX.allowed)
        rle = clean_segmentation(one['rle'], *one['rle']['size'], entry)
        mask = dict(segmentation=rle, area=one['area'], bbox=box, score=one.get('score'))
        best[object_of(one)] = one['image_id'], mask
    return dict(sorted(best.items()))


def image_names(records: Iterable[dict], images_dir: str | None, source: str) -> dict[str, str]:
    """Return the names that images get in an annotation file, by their paths.

    Args:
        records: Predictions, with ``sent_id`` and ``image``.
        images_dir: Folder of the images, where their names have folders inside it. None: an image
            is named by its file alone.
        source: File of the predictions, for messages.

    Raises:
        DataError: An image is not in the folder.
        ValueError: Two images have one name.
    """
    names: dict[str, str] = {}
    paths: dict[str, Path] = {}
    for record in records:
        path = Path(record['image'])
        if images_dir is not None and not path.is_relative_to(images_dir):
            entry = f'{source}: prediction {record["sent_id"]}'
            raise fault(entry, 'image', record['image'], f'a file in {images_dir}')
        name = path.name if images_dir is None else str(path.relative_to(images_dir))
        if paths.setdefault(name, path) != path:
            both = f'{paths[name]} and {path}'
            raise ValueError(f'{source}: {both} have one name: give --images, their folder')
        names[record['image']] = name
    return names


def _image(record: dict, names: dict[str, str]) -> dict:
    height, width = record['rle']['size']
    name = names[record['image']]
    return dict(id=record['image_id'], file_name=name, height=height, width=width)


def _info(content: dict, source: str) -> dict:
    return dict(
        description='pseudo labels: predicted masks, one per object, by the highest score',
        made_by=f'nemo_mmseg {__version__}',
        predictions=source,
        dataset=content.get('dataset'),
    )


def _references(split_file: str) -> dict[int, dict]:
    refs = load_split_file(split_file)
    rules = {**reference_rules(False), **SPLIT, 'category_id': ID, 'sent_ids': SENT_IDS}
    Faults().check(refs, rules, split_file, 'reference', 'ref_id')
    return {ref['ref_id']: ref for ref in refs}
