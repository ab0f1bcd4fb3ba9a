"""Count images shared by training and test splits: ``python tools/misc/check_overlap.py``.

RefCOCO, RefCOCO+ and RefCOCOg share COCO's train2014, so an image can train one of them and test
another. ``NeMoMosaic(leak_guard=dict(...))`` refuses such negatives or leaves them out. CutMix,
MixGen and copy-paste take whatever the training split has: for them, the data set itself takes a
``leak_guard=dict(...)``.
"""

import argparse
import os.path as osp
import sys

from nemo_mmseg.negatives.leak_guard import overlap_table

SPLIT_FILES = (
    'refcoco/refs(unc).p',
    'refcoco+/refs(unc).p',
    'refcocog/refs(umd).p',
    'refcocog/refs(google).p',
    'grefcoco/grefs(unc).json',
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Images shared by training and test splits')
    parser.add_argument(
        'split_files',
        nargs='*',
        help='refs(*).p files (default: those of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO)',
    )
    parser.add_argument('--data-root', default='data/', help='their folder (default: data/)')
    parser.add_argument(
        '--folder', nargs='+', default=[], help='folders of images that shall give negatives'
    )
    return parser.parse_args()


def main() -> int:
    """Print the table."""
    args = parse_args()
    wanted = args.split_files or SPLIT_FILES
    files = [osp.join(args.data_root, file) for file in wanted]
    missing = [file for file in files if not osp.isfile(file)]
    if args.split_files and missing or len(missing) == len(files):
        print(f'there is no {missing[0]}: see --data-root', file=sys.stderr)
        return 1
    try:
        print(overlap_table([file for file in files if file not in missing], args.folder))
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if missing:
        print(f'Not compared, as they are not there: {", ".join(missing)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
