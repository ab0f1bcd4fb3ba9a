"""Segment images: ``python tools/infer.py IMAGE EXPRESSION ... --config CONFIG --weights W``.

A folder in place of the image segments all its images, with a progress bar. Those that cannot be
read are left out, and named at the end.
"""

import argparse
import os
import sys

from tqdm import tqdm

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.inference import ReferringInferencer
from nemo_mmseg.utils.atomic_write import check_folder_path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Segment what expressions describe in an image')
    parser.add_argument('image', help='image file, or folder of such')
    parser.add_argument('expressions', nargs='+', metavar='expression', help='e.g. "the left cat"')
    parser.add_argument('--config', required=True, help='config, name of one of ours, or folder')
    parser.add_argument('--weights', help='checkpoint (default: the untrained network)')
    parser.add_argument('--device', help='e.g. cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--out', default='work_dirs/infer', help='folder (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, help='images that run together')
    return parser.parse_args()


def segment(args: argparse.Namespace) -> list[str]:
    """Segment, write, and print a line for each expression; return what could not be read."""
    check_folder_path(args.out)
    several, errors = os.path.isdir(args.image), []
    inferencer = ReferringInferencer(args.config, args.weights, args.device, show_progress=several)
    kept = errors if several else None  # one image alone is an error, which writes nothing
    for result in inferencer.iterate(
        args.image, args.expressions, args.out, args.batch_size, errors=kept
    ):
        for record in result['predictions']:
            found = f'score {record["score"]:.3f}, {record["area"]} pixels'
            if record['nothing_found']:
                found = 'nothing found'
            image = f'{record["image"]}, ' if several else ''
            tqdm.write(f'{image}{record["expression"]!r}: {found}, {args.out}/{record["mask"]}')
        tqdm.write(f'{args.out}/{result["predictions"][0]["overlay"]}')
    return errors


def main() -> int:
    """Segment; an error is one line, and makes the exit code 1."""
    args = parse_args()
    try:
        errors = segment(args)
    except (ImportError, OSError, ValueError) as error:
        errors = [' '.join(str(error).split())]
    for error in errors:
        print(f'infer: {error}', file=sys.stderr)
    return int(bool(errors))


if __name__ == '__main__':
    sys.exit(main())
