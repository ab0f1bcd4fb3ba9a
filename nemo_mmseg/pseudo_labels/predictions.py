"""Predicted masks as annotations, in the JSON form of referring data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nemo_mmseg.datasets.segmentation import clean_segmentation
from nemo_mmseg.evaluation.predictions_schema import FLAG, MASKED, PREDICTIONS, load_predictions
from nemo_mmseg.utils.annotation_schema import BOX, TEXT
from nemo_mmseg.utils.faults import MISSING, fault
from nemo_mmseg.utils.referring_json import write_referring_json
from nemo_mmseg.version import __version__

RULES = {**MASKED, 'expression': TEXT, 'predicted_no_target': FLAG}


def predictions_to_json(
    results: str, out: str, images_dir: str | None = None, split: str | None = None
) -> tuple[int, int]:
    """Write the predictions of a run as annotations.

    Expressions keep their ids. An object has one mask: of those predicted for its expressions, the
    one with the highest score. Expressions whose masks are all empty are left out, but for those of
    which the network says that there is no target.

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
    # By rising score, so that of several expressions of an object the best one comes last.
    best = {one['ref_id']: one for one in sorted(drawn, key=lambda one: one.get('score', 0))}
    images: dict[int, dict] = {}
    written = 0
    for one in content['predictions']:
        is_empty = bool(one.get('predicted_no_target'))
        if not is_empty and one['ref_id'] not in best:
            continue
        height, width = one['rle']['size']
        made = dict(id=one['image_id'], file_name=names[one['image']], height=height, width=width)
        made.update({} if split is None else {'split': split})
        image = images.setdefault(one['image_id'], dict(made, objects=[], expressions=[]))
        targets = [] if is_empty else [one['ref_id']]
        expression = dict(id=one['sent_id'], text=one['expression'].strip(), targets=targets)
        image['expressions'].append(expression)
        written += 1
    for ref_id, one in sorted(best.items()):
        images[one['image_id']]['objects'].append(_object(ref_id, one, source))
    head = dict(
        info=dict(
            description='pseudo labels: predicted masks, one per object, by the highest score',
            made_by=f'nemo_mmseg {__version__}',
            predictions=source,
            dataset=content.get('dataset'),
        )
    )
    write_referring_json(out, [images[number] for number in sorted(images)], head)
    return written, len(content['predictions']) - written


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


def _object(number: int, record: dict, source: str) -> dict:
    entry = f'{source}: prediction {record["sent_id"]}'
    box = record.get('bbox', MISSING)
    if box is MISSING or not BOX.holds(box):
        raise fault(entry, 'bbox', box, BOX.allowed)
    return dict(
        id=number,
        segmentation=clean_segmentation(record['rle'], *record['rle']['size'], entry),
        area=record['area'],
        bbox=box,
        score=record.get('score'),
    )
