"""Write a trained network as a folder for a model hub: ``publish_model.py CONFIG CHECKPOINT OUT``.

The folder holds the config of inference, the weights as safetensors and a card. ``init_model`` and
``ReferringInferencer`` take it in place of a config. See docs/deployment.md.
"""

import argparse
import sys

import nemo_mmseg  # noqa: F401  (registers our classes)
from nemo_mmseg.apis.inference import init_model
from nemo_mmseg.apis.pretrained import save_pretrained
from nemo_mmseg.utils.atomic_write import check_folder_path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Write a network as a folder for a model hub')
    parser.add_argument('config', help='config file, or name of one of ours')
    parser.add_argument('checkpoint', help='checkpoint of a run; optimizer and log are left out')
    parser.add_argument('out', help='folder to write')
    parser.add_argument('--license', help='licence of the weights, for the card, e.g. apache-2.0')
    parser.add_argument('--notes', default='', help='text for the card: data, scores')
    return parser.parse_args()


def main() -> int:
    """Write the folder; an error is one line and exit code 1."""
    args = parse_args()
    try:
        check_folder_path(args.out)
        model = init_model(args.config, args.checkpoint, 'cpu')
        for file in save_pretrained(model, args.out, args.license, args.notes):
            print(file)
    except (ImportError, OSError, ValueError) as error:
        print(f'publish_model: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
