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
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.inference import fill_model
from nemo_mmseg.evaluation.dump_results import DumpReferringResults
from nemo_mmseg.evaluation.predictions import write_json
from nemo_mmseg.evaluation.referring_iou import ReferringIoU
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


def add_results_writer(evaluator: Evaluator, out_dir: str) -> None:
    """Add a metric that writes the results to the metrics of a test.

    It counts by the rules of the first metric of this package. The slices of a metric with ``by``
    go into ``difficulty.csv``.

    Args:
        evaluator: Evaluator of the test; its metrics are changed.
        out_dir: See :class:`DumpReferringResults`.
    """
    counting = [metric for metric in evaluator.metrics if isinstance(metric, ReferringIoU)]
    sliced = [metric for metric in counting if metric.by]
    if sliced and sliced[0].csv_file is None:  # a second one would overwrite the file
        sliced[0].csv_file = os.path.join(out_dir, 'difficulty.csv')
    rules = counting[0].rules() if counting else {}
    writer = DumpReferringResults(out_dir, **rules)
    writer.dataset_meta = evaluator.dataset_meta
    evaluator.metrics.append(writer)


def evaluate(cfg: Config, checkpoint: str | None, split: str | None, out_dir: str | None) -> None:
    """Evaluate one split.

    Args:
        cfg: Config of the run; changed.
        checkpoint: File with the weights, which must fit the network exactly; None where it is used
            as it was published.
        split: Name of the split; None for the config's own.
        out_dir: Folder for the results, or None. A named split gets a folder inside it.
    """
    if split is not None:
        if 'split' not in cfg.test_dataloader.dataset:
            raise ValueError('--splits needs a test data set with a split, and no wrapper')
        cfg.test_dataloader.dataset.split = split
        # MMEngine reuses a visualizer whose name it knows, with the folder it had.
        cfg.visualizer.name = f'visualizer_{split}'
        hook = cfg.get('default_hooks', {}).get('visualization')
        if hook and hook.get('out_dir'):
            hook.out_dir = os.path.join(hook.out_dir, split)
        out_dir = out_dir and os.path.join(out_dir, split)
    runner = Runner.from_cfg(cfg)
    if out_dir is not None:
        add_results_writer(runner.test_loop.evaluator, out_dir)
    # MMEngine's own loading accepts the file of another network.
    fill_model(runner.model.module if is_model_wrapper(runner.model) else runner.model, checkpoint)
    metrics = runner.test()
    if out_dir is not None and is_main_process():
        # What could not be measured (nan) is null: JSON knows no nan.
        known = {key: None if value != value else value for key, value in metrics.items()}
        write_json(Path(out_dir) / 'metrics.json', known)


if __name__ == '__main__':
    main()
