"""Write a data set in the JSON form of ``ReferringJSONDataset``; ``docs/own_data.md`` has a table.

A file that is to end in ``.jsonl`` is written with an image a line.
"""

import argparse
import sys
from pathlib import Path

# Works from a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nemo_mmseg.datasets.conversion import (  # noqa: E402
    coco_captions_to_json,
    folders_to_json,
    label_studio_to_json,
    labelme_to_json,
    refcoco_to_json,
)
from nemo_mmseg.pseudo_labels.predictions import predictions_to_json  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    forms = parser.add_subparsers(dest='form', required=True, metavar='FORM')
    form = forms.add_parser('folders', help='a folder of pictures, one of masks, a CSV')
    form.add_argument('images', help='folder of the pictures')
    form.add_argument('masks', help='folder of the masks, PNGs that are black but on the object')
    form.add_argument('table', help='CSV: image, mask, sentence, perhaps category and split')
    form = forms.add_parser('refcoco', help="RefCOCO's or gRefCOCO's layout")
    form.add_argument('split_file', help='refs(*).p or grefs(*).json')
    form.add_argument('ann_file', help='instances.json')
    form = forms.add_parser('coco', help='instances.json with captions of the annotations')
    form.add_argument('ann_file', help='instances.json')
    form.add_argument('--key', default='caption', help='field of the captions (default: caption)')
    form = forms.add_parser('labelme', help='what LabelMe saves')
    form.add_argument('folder', help="of LabelMe's JSON files")
    form.add_argument('images', help='folder of the pictures')
    form = forms.add_parser('label-studio', help="Label Studio's export format JSON")
    form.add_argument('export', help='the JSON file')
    form.add_argument('images', help='folder of the pictures')
    form.add_argument('--key', default='image', help="picture in a task's data (default: image)")
    form = forms.add_parser('predictions', help='masks that a network predicted')
    form.add_argument('results', help='folder with predictions.json of tools/test.py --out')
    form.add_argument('--images', help='folder of the images, if their names have sub-folders')
    for name, form in forms.choices.items():
        form.add_argument('out', help='file to write, .json or .jsonl')
        if name not in ('folders', 'refcoco'):  # which tell the splits
            form.add_argument('--split', help='what the split is called (default: no splits)')
    return parser.parse_args()


def convert(args: argparse.Namespace) -> None:
    """Write the file."""
    if args.form == 'folders':
        folders_to_json(args.images, args.masks, args.table, args.out)
    elif args.form == 'refcoco':
        refcoco_to_json(args.split_file, args.ann_file, args.out)
    elif args.form == 'coco':
        coco_captions_to_json(args.ann_file, args.out, args.key, args.split)
    elif args.form == 'labelme':
        labelme_to_json(args.folder, args.images, args.out, args.split)
    elif args.form == 'label-studio':
        label_studio_to_json(args.export, args.images, args.out, args.key, args.split)
    else:
        written, left_out = predictions_to_json(args.results, args.out, args.images, args.split)
        print(f'{written} expressions, {left_out} left out for empty masks')


def main() -> int:
    """Convert; an error is one line and exit code 1."""
    args = parse_args()
    try:
        convert(args)
    except (OSError, ValueError) as error:
        print(f'to_referring_json: {error}', file=sys.stderr)
        return 1
    print(f'{args.out} is written')
    return 0


if __name__ == '__main__':
    sys.exit(main())
