"""Make RefShapes, the embedded data set, in RefCOCO's layout (grefshapes in gRefCOCO's)."""

import argparse
import sys
import time
from pathlib import Path

# Works from a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nemo_mmseg.refshapes.vocabulary import DEFAULT_SIZES, FLAVOURS
from nemo_mmseg.refshapes.write import make_refshapes  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Read the command line.

    Returns:
        The arguments.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', help='folder that gets train2014/ and one folder per flavour')
    parser.add_argument(
        '--flavours', nargs='+', default=list(FLAVOURS), choices=FLAVOURS, help='what to make'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=None, help='processes (default: cores)')
    for split, size in DEFAULT_SIZES.items():
        parser.add_argument(
            f'--{split}', type=int, default=size, help=f'images of {split} (default {size})'
        )
    return parser.parse_args()


def main() -> None:
    """Make the asked flavours and say how long it took."""
    args = parse_args()
    sizes = {split: getattr(args, split) for split in DEFAULT_SIZES}
    for flavour in args.flavours:
        start = time.time()

        def progress(done: int, total: int, name: str = flavour) -> None:
            if done % 500 == 0 or done == total:
                print(f'{name}: {done}/{total} images', flush=True)

        try:
            new = make_refshapes(args.out, flavour, sizes, args.seed, args.workers, progress)
        except (ValueError, FileExistsError) as error:
            sys.exit(f'error: {error}')
        state = f'written in {time.time() - start:.0f} s' if new else 'is there already'
        print(f'{flavour}: {Path(args.out) / flavour} {state}')


if __name__ == '__main__':
    main()
