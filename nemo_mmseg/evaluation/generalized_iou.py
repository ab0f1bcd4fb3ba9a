"""The metric of generalised referring segmentation: expressions of several targets or none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from .generalized_counts import GeneralizedCounts, NoTargetRule
from .iou import count_samples, precision_key


@METRICS.register_module()
class GeneralizedReferringIoU(BaseMetric):
    """gIoU, cIoU, N-acc, T-acc and Pr@X of expressions that may describe nothing.

    As published with ReLA (Liu et al., *GRES: Generalized Referring Expression Segmentation*, CVPR
    2023). Per expression, with I and U the common and joint pixels of prediction and truth:

    ===========  =============  =====  =======================  ==============================
    truth        network says   IoU    adds to sum of I         adds to sum of U
    ===========  =============  =====  =======================  ==============================
    nothing      nothing        1      0                        0
    nothing      a mask         0      0                        U (the predicted pixels)
    targets      nothing        0      0                        U (whatever the mask is)
    targets      a mask         I / U  I                        U
    ===========  =============  =====  =======================  ==============================

    gIoU is the mean IoU over all expressions and cIoU sum I / sum U, in per cent; Pr@X the share of
    the expressions *with* targets whose IoU reaches X, in per cent. N-acc is the share of the
    expressions of nothing that are called so, T-acc the share of the others that are not: both in
    0..1 as published, and 0 when no expression of nothing was evaluated.

    An expression describes nothing where the data sample's `num_targets` is 0; without
    `num_targets`, where its true mask is empty. Of several data sets evaluated together
    (`dataset_name` of the data samples) each gets values of its own too, `<dataset_name>/gIoU` and
    so on.

    Args:
        thresholds: IoU values X of Pr@X, each in 0..1. Defaults to 0.7, 0.8, 0.9.
        no_target: How the network says "nothing": `'score'`, its `no_target` (N,) is above
            `score_threshold`; `'area'`, its mask has fewer than `min_pixels` pixels, the
            convention for networks without such a score; `'auto'`, by score where there is one.
            Defaults to `'auto'`.
        min_pixels: At the size at which masks are compared. Defaults to 50, as published.
        score_threshold: Defaults to 0, for a difference of logits; 0.5 suits probabilities.
        ignore_index: Pixels of the truth with this value are not counted; None counts all.
            Defaults to 255.
        collect_device: `'cpu'` or `'gpu'`, how ranks exchange their counts. Defaults to `'cpu'`.
        prefix: Put before each name (`prefix/gIoU`); None for no prefix.
        collect_dir: Folder that all ranks see, for `collect_device='cpu'`; None for a temporary
            one in the working directory.

    Attributes:
        counts: Of the last evaluation by data set (rank 0), or None.

    Raises:
        ValueError: `no_target` is unknown, or a threshold or `min_pixels` is out of range.
    """

    default_prefix = ''  # not None: MMEngine would warn about a missing prefix

    def __init__(
        self,
        thresholds: Sequence[float] = (0.7, 0.8, 0.9),
        no_target: str = 'auto',
        min_pixels: int = 50,
        score_threshold: float = 0.0,
        ignore_index: int | None = 255,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        name = type(self).__name__
        try:
            self.rule = NoTargetRule(no_target, min_pixels, score_threshold)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        if not all(0 <= threshold <= 1 for threshold in thresholds):
            raise ValueError(f'{name}: thresholds must be in 0..1, got {list(thresholds)}')
        if len(set(map(precision_key, thresholds))) < len(thresholds):
            raise ValueError(f'{name}: a threshold is given twice in {list(thresholds)}')
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.ignore_index = ignore_index
        self.counts: dict[str, GeneralizedCounts] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Counts one batch, and keeps one entry for each of its data samples.

        Args:
            data_batch: Not used; MMEngine passes it.
            data_samples: Data samples as dicts, with `pred_sem_seg`, `gt_sem_seg` and metainfo.
        """
        counted = count_samples(data_samples, self.ignore_index, type(self).__name__)
        for sample, values in zip(data_samples, counted, strict=True):
            counts = GeneralizedCounts.of_sample(sample, values, self.rule)
            entry = counts.intersection, counts.union, counts.said_empty, counts.is_empty
            self.results.append((str(sample.get('dataset_name') or ''), np.stack(entry)))

    def compute_metrics(self, results: list[tuple[str, np.ndarray]]) -> dict[str, float]:
        """Adds up all entries and logs a table.

        Args:
            results: What `process` kept, of all ranks.

        Returns:
            The measures of all expressions, the number `expressions`, and, of several data sets,
            the measures of each.
        """
        names = sorted({name for name, _ in results})
        tables = {name: _joined([entry for one, entry in results if one == name]) for name in names}
        self.counts = tables
        pooled = _joined([entry for _, entry in results])
        metrics = pooled.summary(self.thresholds)
        rows = {'all': (pooled, dict(metrics))}
        # float: MMEngine's logger writes null for integers
        metrics['expressions'] = float(len(pooled.union))
        if len(names) > 1:
            for name, counts in tables.items():
                summary = counts.summary(self.thresholds)
                rows[name] = counts, summary
                metrics.update({f'{name}/{key}': value for key, value in summary.items()})
        print_log(self._report(rows), logger='current')
        return metrics

    def _report(self, rows: dict[str, tuple[GeneralizedCounts, dict[str, float]]]) -> str:
        """The table for the log."""
        table = PrettyTable()
        for name, (counts, summary) in rows.items():
            table.field_names = ['', 'expressions', 'of nothing', 'called nothing', *summary]
            numbers = len(counts.union), int(counts.is_empty.sum()), int(counts.said_empty.sum())
            table.add_row([name, *numbers, *(f'{x:.4g}' for x in summary.values())])
        title = f'{self.prefix}: ' if self.prefix else ''
        return f'{title}IoU and Pr@X in per cent, N-acc and T-acc in 0..1\n{table.get_string()}'


def _joined(entries: Sequence[np.ndarray]) -> GeneralizedCounts:
    """One table of the (4, N) entries."""
    intersection, union, said, is_empty = np.concatenate(
        [np.zeros((4, 0), np.int64), *entries], axis=1
    )
    return GeneralizedCounts(intersection, union, said.astype(bool), is_empty.astype(bool))
