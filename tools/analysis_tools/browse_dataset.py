"""Draw augmented training samples: ``python tools/analysis_tools/browse_dataset.py CONFIG``.

Each sample shows the image with the referent's mask, the expression, and in a mosaic the scores of
its negatives. Nothing is mined: if a bank is missing, the error names the command.
"""

import argparse
import os

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.utils.atomic_write import check_folder_path
from nemo_mmseg.utils.config import add_config_arguments, load_config
from nemo_mmseg.visualization.browse import browse_dataset


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw augmented training samples')
    add_config_arguments(parser)
    parser.add_argument('--out', help='folder of the sheets (default: browse in the work folder)')
    parser.add_argument('--num', type=int, default=24, help='samples, evenly spread (default: 24)')
    parser.add_argument('--indices', type=int, nargs='+', help='these samples instead')
    parser.add_argument(
        '--epoch',
        type=int,
        help='epoch, from 0 (default: the first in which mosaics are mined)',
    )
    parser.add_argument('--cols', type=int, default=4, help='samples in a row (default: 4)')
    parser.add_argument('--rows', type=int, default=3, help='rows of a sheet (default: 3)')
    return parser.parse_args()


def main() -> None:
    """Draw the sheets and name them."""
    args = parse_args()
    cfg = load_config(args)
    out_dir = args.out or os.path.join(cfg.work_dir, 'browse')
    check_folder_path(out_dir)
    settings = args.num, args.epoch, args.indices, args.cols, args.rows
    for file in browse_dataset(cfg, out_dir, *settings):
        print(file)


if __name__ == '__main__':
    main()
