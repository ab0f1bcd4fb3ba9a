"""Evaluate a trained network: `python tools/test.py CONFIG CHECKPOINT`.

On several GPUs: `torchrun --nproc_per_node N tools/test.py CONFIG CHECKPOINT --launcher pytorch`.
`--out DIR` writes `DIR/masks/<sent_id>.png` and `DIR/predictions.json`.
"""

import argparse
import os

from mmengine.runner import Runner

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.evaluation import write_results_to
from nemo_mmseg.utils.tool import add_config_arguments, add_run_arguments, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Evaluate a referring segmentation network')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file of the network')
    parser.add_argument('--out', help='folder to write a mask per expression and a JSON file to')
    parser.add_argument('--show-dir', help='folder to draw tested images to, truth by prediction')
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
    if args.out is not None:
        write_results_to(cfg, args.out)
    if args.show_dir is not None:
        hook = dict(type='ReferringVisualizationHook', interval=1, max_samples=None)
        hooks = cfg.get('default_hooks') or {}
        cfg.default_hooks = dict(hooks, visualization=dict(hook, out_dir=args.show_dir))
    Runner.from_cfg(cfg).test()


if __name__ == '__main__':
    main()
