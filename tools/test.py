"""Evaluate a trained network: `python tools/test.py CONFIG CHECKPOINT`.

On several GPUs: `torchrun --nproc_per_node N tools/test.py CONFIG CHECKPOINT --launcher pytorch`.
"""

import argparse
import os

from mmengine.runner import Runner

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.utils.tool import add_config_arguments, add_run_arguments, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Evaluate a referring segmentation network')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file of the network')
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Build the runner from the config, load the checkpoint and evaluate."""
    args = parse_args()
    if not os.path.isfile(args.checkpoint):
        raise FileNotFoundError(f'there is no checkpoint {args.checkpoint}')
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    Runner.from_cfg(cfg).test()


if __name__ == '__main__':
    main()
