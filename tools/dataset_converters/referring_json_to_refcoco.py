"""Write a file of the JSON form in RefCOCO's layout: ``refs(NAME).p`` and ``instances.json``.

Where an expression has several targets or none, it is gRefCOCO's layout, with ``grefs(NAME).json``.
"""

import argparse
import sys
from pathlib import Path

# Works from a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nemo_mmseg.datasets.conversion import json_to_refcoco  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file', help='NAME.json or NAME.jsonl')
    parser.add_argument('out', help='folder to write to')
    parser.add_argument('--masks', help='folder of masks that are PNGs (default: that of the file)')
    return parser.parse_args()


def main() -> int:
    """Convert; an error is one line and exit code 1."""
    args = parse_args()
    try:
        name = json_to_refcoco(args.file, args.out, args.masks)
    except (OSError, ValueError) as error:
        print(f'referring_json_to_refcoco: {error}', file=sys.stderr)
        return 1
    print(f'{name} and instances.json are in {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
