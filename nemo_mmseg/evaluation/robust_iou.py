"""The metric of R-RefCOCO: expressions that are true of the image, and some that are false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mmseg.registry import METRICS

from .iou import iou_values
from .referring_iou import ReferringIoU
from .scores import ExpressionScores, NoTargetRule


class RejectingScores(ExpressionScores):
    """A table in which a predicted no-target is an empty mask, whatever the network drew."""

    @classmethod
    def of_sample(
        cls,
        sample: dict,
        counts: np.ndarray,
        rule: NoTargetRule,
        empty_union: float = 1.0,
        tie: str = '>=',
    ) -> RejectingScores:
        """Make the table of one data sample, see :meth:`ExpressionScores.of_sample`."""
        intersection, union, area, _ = counts.T
        rejected = rule.predicted(sample, union - area + intersection)
        shown = counts.copy()
        shown[rejected, 0], shown[rejected, 1] = 0, area[rejected]
        scores = super().of_sample(sample, shown, rule, empty_union, tie)
        return replace(scores, generalized=False)

    def ratios_of_true(self, thresholds: Sequence[float] | None = None) -> dict[str, tuple]:
        """Return oIoU, mIoU and Pr@X of the expressions that have a target, see ``ratios``."""
        true = ~self.no_target
        thresholds = self.thresholds if thresholds is None else thresholds
        hits = {f'Pr@{x:g}': (true & self.reaches(self.iou, x), true) for x in thresholds}
        overall = np.where(true, self.intersection, 0), np.where(true, self.union, 0)
        return {'oIoU': overall, 'mIoU': (np.where(true, self.iou, 0), true), **hits}

    def reaches(self, iou: np.ndarray, threshold: float) -> np.ndarray:
        """Tell which IoUs count in Pr@X, ``(E,)`` bool."""
        return iou >= threshold if self.tie == '>=' else iou > threshold


class RobustScores(RejectingScores):
    """The table of :class:`RobustReferringIoU`."""

    def ratios(self, thresholds: Sequence[float] | None = None) -> dict[str, tuple]:
        """Return what each measure divides, see :meth:`ExpressionScores.ratios`.

        What is a mean over references has each expression weighted by one over their number in its
        reference.

        Raises:
            ValueError: The references of the expressions are not known.
        """
        if (self.ref_ids < 0).any():
            raise ValueError('R-RefCOCO is measured by reference: the samples need `ref_ids`')
        thresholds = self.thresholds if thresholds is None else thresholds
        true, false, group = ~self.no_target, self.no_target, self._group()
        every = np.ones(len(self))
        inside, joint = (self._sum(part, group) for part in (self.intersection, self.union))
        measured = joint > 0
        robust = np.where(measured, iou_values(inside, joint), 0)
        share, of_true, of_false = (self._share(rows, group) for rows in (every, true, false))
        right = self.ratios_of_true(thresholds)
        names = [name for name in right if name.startswith('Pr@')]
        sums = self._running_sums(group)
        return {
            'oIoU': right['oIoU'],
            'mIoU': right['mIoU'],
            'r': (of_false * self.predicted_no_target, of_false),
            'rIoU': (share * robust, share * measured),
            **{name: right[name] for name in names},
            'mIoU_published': (of_true * self.iou, of_true),
            **{
                f'{name}_published': (true & self.reaches(sums, x), true)
                for name, x in zip(names, thresholds)
            },
        }

    def _group(self) -> np.ndarray:
        """Number the references, ``(E,)`` int64: ids of several data sets can be equal."""
        names = np.unique(self.datasets.astype(str), return_inverse=True)[1]
        keys = np.stack([names, self.ref_ids], axis=1)
        return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)

    @staticmethod
    def _sum(values: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Sum over the reference of each expression, ``(E,)`` float64."""
        return np.bincount(group, values)[group] if len(group) else np.zeros(0)

    def _share(self, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return 1 / n for the n rows of a reference that are set, else 0."""
        return np.where(rows, 1 / np.maximum(self._sum(rows, group), 1), 0.0)

    def _running_sums(self, group: np.ndarray) -> np.ndarray:
        """Sum the IoUs of the true expressions of a reference so far, in their order."""
        sums = np.zeros(len(self))
        rows = np.flatnonzero(~self.no_target)
        rows = rows[np.argsort(group[rows], kind='stable')]
        for part in np.split(rows, np.flatnonzero(np.diff(group[rows])) + 1):
            sums[part] = np.cumsum(self.iou[part])
        return sums


@METRICS.register_module()
class RobustReferringIoU(ReferringIoU):
    """r, rIoU, oIoU, mIoU and Pr@X of R-RefCOCO, in per cent.

    As in Wu et al., *Towards Robust Referring Image Segmentation*, IEEE TIP 2024. An expression is
    false of the image if its ``num_targets`` is 0. It is *rejected* if the network's no-target
    score says so, or if its mask is empty. The mask of a rejected expression counts as empty.

    ========  ======================================================================================
    measure   meaning
    ========  ======================================================================================
    ``oIoU``  sum I / sum U over the true expressions
    ``mIoU``  mean IoU over the true expressions
    ``Pr@X``  share of the true expressions whose IoU reaches X
    ``r``     mean over references of the share of their false expressions that are rejected
    ``rIoU``  mean over references of I / (U + F): the sums I and U over their true expressions, and
              F over the predicted pixels of their false ones
    ========  ======================================================================================

    The published evaluator (and PropVG's, which follows it) has faults. Its values, for comparisons
    with published tables, end in ``_published``:

    - ``Pr@X_published``: it compares the *sum* of the IoUs of a reference so far with X, instead
      of the IoU. So this is too high: two expressions of IoU 0.3 count as one hit of Pr@0.5.
    - ``mIoU_published``: it averages the IoUs of a reference first, so that expressions of
      references with few count more.
    - It divides by zero where a reference has no false expression, and ``r`` is then nan. Here such
      references are left out of ``r``.
    - In ``rIoU`` it counts the pixels of false expressions at the size of the network's output, but
      those of true ones at the size of the image. Here all are counted at the protocol's size; the
      published value cannot be told from masks of one size.

    Args:
        thresholds: The X of Pr@X, each in 0..1. Defaults to 0.5, 0.6, 0.7, 0.8, 0.9.
        no_target: See :class:`NoTargetRule`. Defaults to ``'either'``, as published.
        min_pixels: See :class:`NoTargetRule`. Defaults to 1: an empty mask.
        score_threshold: See :class:`NoTargetRule`. Defaults to 0.
        **kwargs: ``ignore_index``, ``by``, ``csv_file``, ``collect_device``, ``prefix`` and
            ``collect_dir``, see :class:`ReferringIoU`.

    Raises:
        ValueError: An option is out of its range.
    """

    table = RobustScores

    def __init__(
        self,
        thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
        no_target: str = 'either',
        min_pixels: int = 1,
        score_threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(thresholds, tie='>=', empty_union=0.0, **kwargs)
        self.rule = NoTargetRule(no_target, min_pixels, score_threshold)

    def _score(self, sample: dict, counts: np.ndarray) -> ExpressionScores:
        return self.table.of_sample(sample, counts, self.rule, self.empty_union, self.tie)
