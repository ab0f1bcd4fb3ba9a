"""The metric of referring segmentation: oIoU, mIoU and Pr@X over expressions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from .difficulty import check_by, slice_by
from .iou import TIES, count_samples, precision_key
from .predictions import write_csv
from .scores import ExpressionScores


@METRICS.register_module()
class ReferringIoU(BaseMetric):
    """Overall IoU, mean IoU and precision over all expressions, in per cent (0..100).

    Every expression counts once. The metric only counts: at which size and threshold masks are
    compared is the segmentor's `test_cfg=dict(protocol=...)`. It compares `pred_sem_seg` with
    `gt_sem_seg` of a data sample, both (N, H, W) of one size, and keeps one entry per data sample
    with its N counts inside, because MMEngine cuts collected results to the number of data items.

    Published evaluations differ in two details that are options here:

    ============  ======  =============  ==========================================
    publication   `tie`   `empty_union`  remark
    ============  ======  =============  ==========================================
    LAVT          `>=`    0.0            compares at 480x480
    CRIS          `>`     0.0            divides by union + 1e-6; has no oIoU
    CGFormer      `>`     0.0            the same
    ============  ======  =============  ==========================================

    By default an expression whose truth and prediction are both empty counts IoU 1: saying
    "nothing" where there is nothing is right (gRefCOCO's evaluation agrees). In RefCOCO no truth
    is empty, so this shows only where a resized or partly ignored mask vanishes.

    To keep the best checkpoint: `CheckpointHook(save_best='oIoU', rule='greater')`.

    With `by` the log shows the same measures by difficulty, the analyses of the NeMo paper (ECCV
    2024), and the result has `<by>=<slice>/oIoU` and `.../mIoU` of each slice that holds an
    expression, e.g. `distractors=3+/mIoU`. `tools/analysis_tools/compare_runs.py`
    compares two runs.

    Args:
        thresholds: IoU values X of Pr@X, each in 0..1. Defaults to 0.5, 0.6, 0.7, 0.8, 0.9.
        tie: `'>='` (LAVT) or `'>'` (CRIS): whether an IoU of exactly X counts. Defaults to `'>='`.
        empty_union: IoU where truth and prediction are both empty, in 0..1. Defaults to 1.0.
        ignore_index: Pixels of the truth with this value are not counted; None counts all.
            Defaults to 255.
        by: Difficulties to slice by: `'distractors'`, `'length'`, `'area'`, `'position'`, or some
            of them crossed, as in `'position*length'` (see `slice_by`). Defaults to none.
        csv_file: Where the measures of the whole and of the slices are written too, a line each,
            anew at each evaluation; `tools/test.py --out DIR` names `DIR/difficulty.csv` where `by`
            is given. Defaults to nowhere.
        collect_device: `'cpu'` or `'gpu'`, how ranks exchange their counts. Defaults to `'cpu'`.
        prefix: Put before each name (`prefix/oIoU`); None for no prefix.
        collect_dir: Folder that all ranks see, for `collect_device='cpu'`; None for a temporary
            one in the working directory.

    Attributes:
        scores: The values per expression of the last evaluation (rank 0), or None.
    """

    default_prefix = ''  # not None: MMEngine would warn about a missing prefix

    def __init__(
        self,
        thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
        tie: str = '>=',
        empty_union: float = 1.0,
        ignore_index: int | None = 255,
        by: Sequence[str] = (),
        csv_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if tie not in TIES:
            raise ValueError(f'ReferringIoU: tie must be one of {TIES}, got {tie!r}')
        if not 0 <= empty_union <= 1:
            raise ValueError(f'ReferringIoU: empty_union must be in 0..1, got {empty_union}')
        if not all(0 <= threshold <= 1 for threshold in thresholds):
            raise ValueError(f'ReferringIoU: thresholds must be in 0..1, got {list(thresholds)}')
        if len(set(map(precision_key, thresholds))) < len(thresholds):
            raise ValueError(f'ReferringIoU: a threshold is given twice in {list(thresholds)}')
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.tie = tie
        self.empty_union = float(empty_union)
        self.ignore_index = ignore_index
        self.by = check_by(by)
        self.csv_file = csv_file
        self.scores: ExpressionScores | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Counts one batch, and keeps one entry for each of its data samples.

        Args:
            data_batch: Not used; MMEngine passes it.
            data_samples: Data samples as dicts, with `pred_sem_seg`, `gt_sem_seg` and metainfo.
        """
        counts = count_samples(data_samples, self.ignore_index, type(self).__name__)
        for sample, count in zip(data_samples, counts, strict=True):
            self.results.append(ExpressionScores.entry(sample, *count.T))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Adds up all entries, logs a table and the counts.

        Args:
            results: What `process` kept, of all ranks.

        Returns:
            `oIoU`, `mIoU`, `Pr@X` in per cent, the counts `expressions` and `images`, and oIoU and
            mIoU of the slices of `by`.
        """
        self.scores = ExpressionScores.collect(results, self.empty_union, self.tie)
        metrics = self.scores.summary(self.thresholds)
        print_log(self._report(metrics), logger='current')
        # float: MMEngine's logger writes null for integers
        metrics.update(expressions=float(len(self.scores)), images=float(self.scores.num_images))
        rows = [self._row('all', 'all', np.ones(len(self.scores), dtype=bool))]
        for by in self.by:
            rows += self._sliced(by)
        for row in rows[1:]:
            for key in ('oIoU', 'mIoU'):
                metrics[f'{row["by"]}={row["slice"]}/{key}'] = row[key]
        if self.csv_file is not None:
            write_csv(self.csv_file, rows)
        return metrics

    def _report(self, metrics: dict[str, float]) -> str:
        """The table for the log."""
        table = PrettyTable(field_names=list(metrics))
        table.add_row([f'{value:.2f}' for value in metrics.values()])
        empty = int((self.scores.union == 0).sum())
        return (
            f'{self._title()}{len(self.scores)} expressions '
            f'of {self.scores.num_images} images (per cent; Pr@X counts IoU {self.tie} X; '
            f'{empty} empty unions count {self.empty_union:g})\n{table.get_string()}'
        )

    def _title(self) -> str:
        return f'{self.prefix}: ' if self.prefix else ''

    def _sliced(self, by: str) -> list[dict]:
        """Logs the table of one difficulty and returns its lines."""
        rows = [self._row(by, *pair) for pair in slice_by(self.scores, by).filled]
        table = PrettyTable()
        for row in rows:
            _, label, expressions, images, *values = row.values()
            table.field_names = [by, *list(row)[2:]]
            table.add_row([label, expressions, images, *(f'{value:.2f}' for value in values)])
        print_log(f'{self._title()}by {by}\n{table.get_string()}', logger='current')
        return rows

    def _row(self, by: str, label: str, where: np.ndarray) -> dict:
        """What is measured of one slice."""
        return dict(
            by=by,
            slice=label,
            expressions=int(where.sum()),
            images=len({image for image, held in zip(self.scores.images, where) if held}),
            **self.scores.summary(self.thresholds, where),
        )
