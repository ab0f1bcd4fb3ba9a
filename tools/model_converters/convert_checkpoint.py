"""Convert a published checkpoint: ``convert_checkpoint.py lavt IN OUT``.

Prints what was left out and why, and which base model fits. No code in the file is run.
"""

import argparse
import sys

from mmengine.config import Config

import nemo_mmseg  # noqa: F401  (registers our classes)
from nemo_mmseg.models.converters.convert import Converted, convert_file
from nemo_mmseg.models.converters.converter import CONVERTERS
from nemo_mmseg.utils.config import find_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Convert a published checkpoint')
    parser.add_argument(
        'method', choices=CONVERTERS, help='lavt: BERT in an entry of its own; lavt_one: inside'
    )
    parser.add_argument('source', metavar='IN', help='published checkpoint, file or address')
    parser.add_argument('target', metavar='OUT', help='file to write')
    parser.add_argument('--config', help='config of a size that was not published')
    return parser.parse_args()


def read_model(name: str) -> dict:
    """Return the network of a config, by its path or name."""
    path = find_config(name)
    try:
        model = Config.fromfile(path).get('model')
    except OSError:
        raise
    except Exception as error:  # whatever a config, which is a program, may raise
        raise ValueError(f'{name} cannot be read: {type(error).__name__}: {error}') from error
    if not isinstance(model, dict):
        raise ValueError(f'{name} has no model')
    return model


def print_report(converted: Converted, args: argparse.Namespace) -> None:
    """Say what was left out, what was written and what it fits."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in converted.left_out.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        print(f'left out {len(names)}: {reason}')
        print('\n'.join(f'    {name}' for name in names))
    fits = args.config or f'configs/_base_/models/{converted.model}.py'
    print(
        f'{len(converted.state_dict)} tensors written to {args.target}, '
        f'{len(converted.left_out)} left out; it fits {fits}'
    )


def main() -> int:
    """Convert; an error is one line and exit code 1."""
    args = parse_args()
    try:
        model = read_model(args.config) if args.config else None
        print_report(convert_file(args.method, args.source, args.target, model), args)
    except (ImportError, OSError, ValueError) as error:
        print(f'convert_checkpoint: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
