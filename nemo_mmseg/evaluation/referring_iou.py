"""The metric of referring segmentation: oIoU, mIoU and Pr@X over expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from .difficulty import difficulties, slice_by
from .iou import count_samples
from .predictions import write_csv
from .scores import ExpressionScores, NoTargetRule


@METRICS.register_module()
class ReferringIoU(BaseMetric):
    """Overall IoU, mean IoU and precision over all expressions, in per cent (0..100).

    Every expression counts once. The metric only counts: the size and the threshold at which masks
    are compared belong to the segmentor's protocol. It compares ``pred_sem_seg`` with
    ``gt_sem_seg`` of a data sample, both ``(N, H, W)``.

    Published evaluations differ in two details, which are options here:

    ============  =======  ===============  =====================================
    publication   ``tie``  ``empty_union``  note
    ============  =======  ===============  =====================================
    LAVT          ``>=``   0.0              compares at 480x480
    CRIS          ``>``    0.0              divides by union + 1e-6; has no oIoU
    CGFormer      ``>``    0.0              the same
    ============  =======  ===============  =====================================

    To keep the best checkpoint: ``CheckpointHook(save_best='oIoU', rule='greater')``.

    With ``by`` the same is measured by difficulty, the analyses of the NeMo paper (ECCV 2024). The
    result then has ``<by>=<slice>/oIoU`` and ``.../mIoU`` of each slice that holds an expression,
    e.g. ``distractors=3+/mIoU``. Several data sets that are evaluated together get
    ``<dataset_name>/oIoU`` and so on. ``tools/analysis_tools/compare_runs.py`` compares two runs.

    Args:
        thresholds: The X of Pr@X, each in 0..1. Defaults to 0.5, 0.6, 0.7, 0.8, 0.9.
        tie: ``'>='`` (LAVT) or ``'>'`` (CRIS): whether an IoU of exactly X counts. Defaults to
            ``'>='``.
        empty_union: IoU, in 0..1, where ground truth and prediction are both empty. In RefCOCO
            only resized or partly ignored masks can be. Defaults to 1.0.
        ignore_index: Pixels of the ground truth with this value are not counted; None counts all.
            Defaults to 255.
        by: Difficulties to slice by: ``'distractors'``, ``'length'``, ``'area'``,
            ``'position'``, or some of them crossed, as in ``'position*length'`` (see
            :func:`slice_by`). Defaults to none.
        csv_file: File for the measures of the whole and of the slices, a line each, written anew at
            each evaluation. Defaults to None.
        **kwargs: ``collect_device`` (how ranks exchange their counts), ``prefix`` and
            ``collect_dir`` of MMEngine's ``BaseMetric``.

    Attributes:
        scores: Table of the last evaluation (rank 0), or None.

    Raises:
        ValueError: An option is out of its range, or a difficulty is unknown.
    """

    default_prefix = ''  # not None: MMEngine would warn about a missing prefix
    rule: NoTargetRule | None = None

    def __init__(
        self,
        thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
        tie: str = '>=',
        empty_union: float = 1.0,
        ignore_index: int | None = 255,
        by: Sequence[str] = (),
        csv_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        in_range = all(0 <= value <= 1 for value in (empty_union, *thresholds))
        if tie not in ('>=', '>') or not in_range:
            raise ValueError(
                f"{type(self).__name__}: tie must be '>=' or '>', empty_union and thresholds in "
                f'0..1, got {tie!r}, {empty_union} and {list(thresholds)}'
            )
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.tie = tie
        self.empty_union = float(empty_union)
        self.ignore_index = ignore_index
        self.by = difficulties(by)
        self.csv_file = csv_file
        self.scores: ExpressionScores | None = None

    def rules(self) -> dict[str, Any]:
        """Return how expressions are counted, as arguments of :class:`DumpReferringResults`."""
        rule = None if self.rule is None else asdict(self.rule)
        return dict(
            empty_union=self.empty_union,
            tie=self.tie,
            ignore_index=self.ignore_index,
            no_target_rule=rule,
        )

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Count one batch.

        MMEngine cuts the collected results to the number of data items, so there is one entry for
        each data sample, with all its expressions.

        Args:
            data_batch: Not used; MMEngine passes it.
            data_samples: Data samples as dicts, with ``pred_sem_seg``, ``gt_sem_seg`` and metainfo.
        """
        counts = count_samples(data_samples, self.ignore_index)
        self.results += [self._score(*pair) for pair in zip(data_samples, counts)]

    def _score(self, sample: dict, counts: np.ndarray) -> ExpressionScores:
        return ExpressionScores.of_sample(sample, counts, self.rule, self.empty_union, self.tie)

    def compute_metrics(self, results: list[ExpressionScores]) -> dict[str, float]:
        """Measure all expressions and each slice, and log a table.

        Args:
            results: What :meth:`process` kept, of all ranks.

        Returns:
            The measures of all expressions, the numbers ``expressions`` and ``images``, and the
            measures of the slices.
        """
        # carries the settings where nothing was evaluated
        nothing = self._score(dict(no_target=[]), np.zeros((0, 4), np.int64))
        self.scores = scores = ExpressionScores.join([nothing, *results])
        measures = scores.summary(self.thresholds)
        # float: MMEngine's logger writes null for integers
        counts = dict(expressions=float(len(scores)), images=float(scores.num_images))
        metrics = {**measures, **counts}
        rows = [self._row('all', 'all', np.ones(len(scores), dtype=bool))]
        datasets = sorted(set(scores.datasets))
        for name in datasets if len(datasets) > 1 else ():
            rows.append(self._row('dataset', name, scores.datasets == name))
            metrics.update({f'{name}/{key}': rows[-1][key] for key in measures})
        sliced = [*[*measures][:2], *scores.measures]
        for by in self.by:
            for label, where in slice_by(scores, by).items():
                rows.append(self._row(by, label, where))
                metrics.update({f'{by}={label}/{key}': rows[-1][key] for key in sliced})
        if self.csv_file is not None:
            write_csv(self.csv_file, rows)
        print_log(self._report(rows), logger='current')
        return metrics

    def _row(self, by: str, label: str, where: np.ndarray) -> dict[str, object]:
        """Measure one slice."""
        scores = self.scores
        row = dict(by=by, slice=label, expressions=int(where.sum()))
        row['images'] = len(set(scores.images[where]))
        if self.rule is not None:
            row['no-target'] = int(scores.no_target[where].sum())
            row['predicted no-target'] = int(scores.predicted_no_target[where].sum())
        return {**row, **scores.summary(self.thresholds, where)}

    def _report(self, rows: Sequence[dict]) -> str:
        """Return the table for the log."""
        table = PrettyTable(list(rows[0]))
        for row, after in zip(rows, [*rows[1:], None]):
            cells = [f'{x:.4g}' if isinstance(x, float) else x for x in row.values()]
            table.add_row(cells, divider=after is not None and after['by'] != row['by'])
        title = f'{self.prefix}: ' if self.prefix else ''
        title += 'per cent, but N-acc and T-acc in 0..1' if self.scores.generalized else 'per cent'
        empty = int((self.scores.union == 0).sum())
        return f'{title}; Pr@X: IoU {self.tie} X; {empty} empty unions\n{table.get_string()}'
