"""Make RefShapes, the embedded data set, in RefCOCO's layout (grefshapes in gRefCOCO's)."""

import argparse
import sys
import time
from pathlib import Path

# Works from a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nemo_mmseg.refshapes import (  # noqa: E402
    DEFAULT_SIZES,
    DISTRACTORS,
    VARIANTS,
    make_refshapes,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', help='folder that gets train2014/ and one folder per variant')
    parser.add_argument(
        '--variants', nargs='+', default=list(VARIANTS), choices=VARIANTS, help='what to make'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, help='number of processes (default: one per core)')
    parser.add_argument(
        '--distractors',
        default='normal',
        choices=DISTRACTORS,
        help='how many objects of the same category training scenes hold',
    )
    parser.add_argument(
        '--context',
        type=float,
        default=0.0,
        help='how far background and companions tell the category in training scenes, 0 to 1',
    )
    for split, size in DEFAULT_SIZES.items():
        parser.add_argument(
            f'--{split}', type=int, default=size, help=f'images of {split} (default {size})'
        )
    return parser.parse_args()


def main() -> None:
    """Make the variants and print how long it took."""
    args = parse_args()
    sizes = {split: getattr(args, split) for split in DEFAULT_SIZES}
    for variant in args.variants:
        start = time.time()

        def progress(done: int, total: int, name: str = variant) -> None:
            if done % 500 == 0 or done == total:
                print(f'{name}: {done}/{total} images', flush=True)

        try:
            new = make_refshapes(
                args.out,
                variant,
                sizes,
                args.seed,
                args.workers,
                progress,
                distractors=args.distractors,
                context=args.context,
            )
        except (FileExistsError, ValueError) as error:
            sys.exit(f'error: {error}')
        state = f'written in {time.time() - start:.0f} s' if new else 'is there already'
        print(f'{variant}: {Path(args.out) / variant} {state}')


if __name__ == '__main__':
    main()
