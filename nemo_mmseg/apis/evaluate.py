"""Evaluation of a config and a checkpoint, split by split."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from nemo_mmseg.evaluation.dump_results import DumpReferringResults
from nemo_mmseg.evaluation.predictions import write_json
from nemo_mmseg.evaluation.referring_iou import ReferringIoU

from .inference import fill_model


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


def evaluate(
    cfg: Config, checkpoint: str | None, split: str | None, out_dir: str | None
) -> dict[str, float]:
    """Evaluate one split.

    Args:
        cfg: Config of the run; changed.
        checkpoint: File with the weights, which must fit the network exactly; None where it is used
            as it was published.
        split: Name of the split; None for the config's own.
        out_dir: Folder for the results, or None. A named split gets a folder inside it.

    Returns:
        The measures by name.

    Raises:
        ValueError: A split is named, but the test data set has none.
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
    return metrics
