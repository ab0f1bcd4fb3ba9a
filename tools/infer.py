"""Segment an image: `python tools/infer.py IMAGE EXPRESSION ... --config CONFIG --weights W`."""

import argparse
from collections.abc import Sequence

from infer import main

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.inference import ReferringInferencer

if __name__ == '__main__':
    main()


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Segment what expressions describe in an image')
    parser.add_argument('image', help='image file')
    parser.add_argument('expressions', nargs='+', metavar='expression', help='e.g. "the left cat"')
    parser.add_argument('--config', required=True, help='config file, or name of one of ours')
    parser.add_argument('--weights', help='checkpoint (default: the untrained network)')
    parser.add_argument('--device', help='e.g. cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--out', default='work_dirs/infer', help='folder (default: %(default)s)')
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Segment, write, and print a line an expression."""
    options = parse_args(args)
    inferencer = ReferringInferencer(options.config, options.weights, options.device)
    result = inferencer(options.image, options.expressions, out_dir=options.out)
    for record in result['predictions']:
        print(
            f'{record["expression"]!r}: score {record["score"]:.3f}, {record["area"]} pixels, '
            f'{options.out}/{record["mask"]}'
        )
    print(f'{options.out}/{result["predictions"][0]["overlay"]}')


if __name__ == '__main__':
    main()
