"""Count images shared by training and test splits: ``python tools/misc/check_overlap.py``.

RefCOCO, RefCOCO+ and RefCOCOg share COCO's train2014, so an image can train one of them and test
another. ``NeMoMosaic(leak_guard=dict(...))`` refuses such negatives or leaves them out. CutMix,
MixGen and copy-paste take whatever the training split has: for them, the data set itself takes a
``leak_guard=dict(...)``.
"""

import argparse
import os.path as osp
import re
import sys
from collections.abc import Sequence

from prettytable import PrettyTable

from nemo_mmseg.negatives.leak_guard import ImageKeys, image_key, split_images
from nemo_mmseg.negatives.pool import FolderPool

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


def overlap_table(split_files: Sequence[str], folders: Sequence[str] = ()) -> PrettyTable:
    """Count the images that pools of negatives share with validation and test splits.

    Args:
        split_files: ``refs(*).p`` of the data sets. Each gives a pool (its ``train`` split) and the
            splits that are held out.
        folders: Folders of images that are pools, too.

    Returns:
        A table with a row for each split that is held out, and a column for each pool: numbers of
        images.
    """
    of_file = {_title(file): split_images(file) for file in split_files}
    pools = {f'{name} train': of['train'] for name, of in of_file.items() if 'train' in of}
    for folder in folders:
        pools[folder] = frozenset(image_key(str(name)) for name in FolderPool(folder).names)
    table = PrettyTable(['images in both', 'all', *pools], align='r')
    table.align['images in both'] = 'l'
    table.add_row(['all', '', *map(len, pools.values())], divider=True)
    for name, of in of_file.items():
        for split in sorted(of.keys() - {'train'}):
            tested = ImageKeys(of[split])
            shared = [sum(key in tested for key in pool) for pool in pools.values()]
            table.add_row([f'{name} {split}', len(of[split]), *shared])
    return table


def _title(split_file: str) -> str:
    """Return ``refcocog (umd)`` for ``data/refcocog/refs(umd).p``."""
    folder, file = osp.split(split_file)
    maker = re.search(r'\(.*\)', file)
    return f'{osp.basename(folder)} {maker[0] if maker else file}'


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
