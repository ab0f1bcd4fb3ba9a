"""Make a training set of predicted masks: ``predictions_to_refcoco.py RESULTS SPLIT_FILE OUT``.

RESULTS is what ``tools/test.py --splits train --out DIR`` wrote (``DIR/train``), SPLIT_FILE the
``refs(*).p`` of the same data. OUT gets ``instances.json`` and a file of the split file's name, in
RefCOCO's layout. ``RefCOCODataset(ann_file='OUT/instances.json', split_file='OUT/refs(unc).p',
...)`` then trains on the predictions as on any annotation.

A reference has one mask: of those predicted for its expressions, the one with the highest score.
References whose masks are all empty are left out. Files that are there are not replaced.
"""

import argparse
import sys

from nemo_mmseg.pseudo_labels.predictions import predictions_to_refcoco


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
        written, left_out = predictions_to_refcoco(
            args.results, args.split_file, args.out, args.images
        )
    except (OSError, ValueError) as error:
        print(f'predictions_to_refcoco: {error}', file=sys.stderr)
        return 1
    print(f'{written} references in {args.out}, {left_out} left out for empty masks')
    return 0


if __name__ == '__main__':
    sys.exit(main())
