"""Evaluate a trained network: ``python tools/test.py CONFIG CHECKPOINT``.

On several GPUs: ``torchrun --nproc_per_node N tools/test.py CONFIG CHECKPOINT --launcher pytorch``.
``--out DIR`` writes ``DIR/masks/<sent_id>.png``, ``DIR/predictions.json`` and ``DIR/metrics.json``;
with ``--cfg-options test_evaluator.by=distractors,length`` also the measures by difficulty,
``DIR/difficulty.csv``. ``--splits val testA testB`` evaluates these splits of the test data set one
after the other, each with its results in ``DIR/<split>``.
"""

import argparse
import copy
import os

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.evaluate import evaluate
from nemo_mmseg.utils.atomic_write import check_folder_path
from nemo_mmseg.utils.config import add_config_arguments, add_run_arguments, load_config
from nemo_mmseg.utils.dist import leave_process_group


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Evaluate a referring segmentation network')
    add_config_arguments(parser)
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint file; none for a network used as published'
    )
    parser.add_argument('--out', help='folder to write a mask per expression and a JSON file to')
    parser.add_argument('--splits', nargs='+', help="splits to evaluate, in place of the config's")
    parser.add_argument('--show-dir', help='folder for drawings of ground truth and prediction')
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Build the runner from the config, load the checkpoint and evaluate."""
    args = parse_args()
    if args.checkpoint is not None and not os.path.isfile(args.checkpoint):
        raise FileNotFoundError(f'there is no checkpoint {args.checkpoint}')
    cfg = load_config(args)
    cfg.load_from, cfg.resume = None, False
    if args.show_dir is not None:
        check_folder_path(args.show_dir)
        hook = dict(type='ReferringVisualizationHook', interval=1, max_samples=None)
        hooks = cfg.get('default_hooks', {})
        cfg.default_hooks = {**hooks, 'visualization': dict(hook, out_dir=args.show_dir)}
    for split in args.splits or [None]:
        evaluate(copy.deepcopy(cfg), args.checkpoint, split, args.out)
    leave_process_group()


if __name__ == '__main__':
    main()
