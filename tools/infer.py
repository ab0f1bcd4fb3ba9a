"""Segment an image: ``python tools/infer.py IMAGE EXPRESSION ... --config CONFIG --weights W``."""

import argparse

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.inference import ReferringInferencer
from nemo_mmseg.utils.atomic_write import check_folder_path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Segment what expressions describe in an image')
    parser.add_argument('image', help='image file')
    parser.add_argument('expressions', nargs='+', metavar='expression', help='e.g. "the left cat"')
    parser.add_argument('--config', required=True, help='config file, or name of one of ours')
    parser.add_argument('--weights', help='checkpoint (default: the untrained network)')
    parser.add_argument('--device', help='e.g. cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--out', default='work_dirs/infer', help='folder (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Segment, write, and print a line for each expression."""
    args = parse_args()
    check_folder_path(args.out)
    inferencer = ReferringInferencer(args.config, args.weights, args.device)
    result = inferencer(args.image, args.expressions, out_dir=args.out)
    for record in result['predictions']:
        found = f'score {record["score"]:.3f}, {record["area"]} pixels'
        if record['nothing_found']:
            found = 'nothing found'
        print(f'{record["expression"]!r}: {found}, {args.out}/{record["mask"]}')
    print(f'{args.out}/{result["predictions"][0]["overlay"]}')


if __name__ == '__main__':
    main()
