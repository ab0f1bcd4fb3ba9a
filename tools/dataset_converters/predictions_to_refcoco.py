"""Make a training set of predicted masks: ``predictions_to_refcoco.py RESULTS SPLIT_FILE OUT``.

RESULTS is what ``tools/test.py --splits train --out DIR`` wrote (``DIR/train``), SPLIT_FILE the
``refs(*).p`` of the same data. OUT gets ``instances.json`` and a file of the split file's name, in
RefCOCO's layout. ``RefCOCODataset(ann_file='OUT/instances.json', split_file='OUT/refs(unc).p',
...)`` then trains on the predictions as on any annotation.

A reference has one mask: of those predicted for its expressions, the one with the highest score.
References whose masks are all empty are left out.
"""

import argparse
import json
import pickle
import sys
from pathlib import Path

from nemo_mmseg.datasets.segmentation import clean_segmentation
from nemo_mmseg.evaluation.predictions_schema import MASKED, PREDICTIONS, load_predictions
from nemo_mmseg.pseudo_labels.predictions import image_names
from nemo_mmseg.utils.annotation_schema import BOX, ID, SPLIT, reference_rules
from nemo_mmseg.utils.atomic_write import check_folder_path, write_bytes, write_text
from nemo_mmseg.utils.faults import MISSING, Faults, Rule, fault
from nemo_mmseg.utils.fileio import load_split_file
from nemo_mmseg.version import __version__

SENT_IDS = Rule('a list of ids, whole numbers', (list,), also=lambda value: ID.holds(*value))


def convert(
    results: str, split_file: str, out_dir: str, images_folder: str | None = None
) -> tuple[int, int]:
    """Write the predictions of a run as annotations.

    Args:
        results: Folder with ``predictions.json``.
        split_file: ``refs(*).p`` of the data that was predicted.
        out_dir: Folder to write to, made if missing.
        images_folder: Folder of the images, where their names have folders inside it. Defaults to
            None: an image is named by its file alone.

    Returns:
        Numbers of the references that were written and of those left out.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The predictions are not of these references, an image is not in the folder, or
            two images have one name.
    """
    check_folder_path(out_dir)
    source = Path(results) / PREDICTIONS
    content = load_predictions(str(source), MASKED)
    refs = _references(split_file)
    names = image_names(content['predictions'], images_folder, str(source))
    images, annotations, kept = {}, {}, set()
    # By rising score, so that of several expressions of an object the best one comes last.
    for record in sorted(content['predictions'], key=lambda record: record.get('score', 0)):
        ref, image_id = refs.get(record['ref_id'], {}), record['image_id']
        if record['sent_id'] not in ref.get('sent_ids', ()) or image_id != ref['image_id']:
            raise ValueError(
                f'{source} is not of the data of {split_file}: expression {record["sent_id"]} is '
                f'none of its reference {record["ref_id"]}, of image {image_id}'
            )
        if not record['area']:
            continue
        kept.add(ref['ref_id'])
        height, width = record['rle']['size']
        entry = f'{source}: prediction {record["sent_id"]}'
        box = record.get('bbox', MISSING)
        if box is MISSING or not BOX.holds(box):
            raise fault(entry, 'bbox', box, BOX.allowed)
        name = names[record['image']]
        images[image_id] = dict(id=image_id, file_name=name, height=height, width=width)
        annotations[ref['ann_id']] = dict(
            id=ref['ann_id'],
            image_id=image_id,
            category_id=ref['category_id'],
            segmentation=clean_segmentation(record['rle'], height, width, entry),
            area=record['area'],
            bbox=box,
            iscrowd=0,
            score=record.get('score'),
        )
    categories = sorted({annotation['category_id'] for annotation in annotations.values()})
    instances = dict(
        info=dict(
            description='pseudo labels: predicted masks, one per reference, by the highest score',
            made_by=f'nemo_mmseg {__version__}, tools/dataset_converters/predictions_to_refcoco.py',
            predictions=str(source),
            split_file=split_file,
            dataset=content.get('dataset'),
        ),
        images=[images[number] for number in sorted(images)],
        annotations=[annotations[number] for number in sorted(annotations)],
        categories=[dict(id=number) for number in categories],
    )
    labelled = [ref for ref_id, ref in refs.items() if ref_id in kept]
    write_bytes(Path(out_dir) / Path(split_file).name, pickle.dumps(labelled, protocol=2))
    write_text(Path(out_dir) / 'instances.json', json.dumps(instances))
    return len(kept), len({record['ref_id'] for record in content['predictions']} - kept)


def _references(split_file: str) -> dict[int, dict]:
    refs = load_split_file(split_file)
    rules = {**reference_rules(False), **SPLIT, 'category_id': ID, 'sent_ids': SENT_IDS}
    Faults().check(refs, rules, split_file, 'reference', 'ref_id')
    return {ref['ref_id']: ref for ref in refs}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Make a training set of predicted masks')
    parser.add_argument('results', help='folder with predictions.json of tools/test.py --out')
    parser.add_argument('split_file', help='refs(*).p of the same data')
    parser.add_argument('out', help='folder to write to')
    parser.add_argument('--images', help='folder of the images, if their names have sub-folders')
    return parser.parse_args()


def main() -> int:
    """Convert; an error is one line and exit code 1."""
    args = parse_args()
    try:
        written, left_out = convert(args.results, args.split_file, args.out, args.images)
    except (OSError, ValueError) as error:
        print(f'predictions_to_refcoco: {error}', file=sys.stderr)
        return 1
    print(f'{written} references in {args.out}, {left_out} left out for empty masks')
    return 0


if __name__ == '__main__':
    sys.exit(main())
