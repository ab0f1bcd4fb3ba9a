"""The metric of RefCOCO with reviewed or cleaned labels beside the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.logging import print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from .iou import count_samples
from .referring_iou import ReferringIoU
from .scores import ExpressionScores


@dataclass(frozen=True)
class _Labelled:
    """Scores of a data sample: with the published masks, with clean ones, and who has them."""

    scores: ExpressionScores
    clean: ExpressionScores
    cleaned: np.ndarray
    reviewed: np.ndarray


@METRICS.register_module()
class CleanReferringIoU(ReferringIoU):
    """oIoU, mIoU and Pr@X on all, on reviewed and on cleaned ground truth, side by side.

    The data set needs ``gt_overlay`` (masks of RefCOCO-M), ``reviewed`` (whether a reviewer found
    an expression right), or both; the test pipeline ``LoadReferentMask``. Beside the measures of
    all expressions with the published masks, which are those of :class:`ReferringIoU`, there are

    =================  =========================================================================
    set                expressions, masks
    =================  =========================================================================
    ``reviewed/``      those that the reviewer found right, published masks
    ``rejected/``      those that the reviewer found wrong, published masks
    ``cleanable/``     those that have a clean mask, published masks
    ``clean/``         the same, clean masks. ``clean/mIoU`` is RefCOCO-M's measure
    ``clean_right/``   those of them that the reviewer found right, clean masks
    =================  =========================================================================

    ``clean/`` less ``cleanable/`` is what the published masks hide; ``cleanable/`` less all is what
    the choice of expressions does. Each set has its number of ``expressions``. A set without an
    expression is left out.

    The arguments are those of :class:`ReferringIoU`.
    """

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Count one batch, against either ground truth, see :meth:`ReferringIoU.process`.

        Raises:
            ValueError: A data sample has neither clean masks nor reviewed expressions.
        """
        counts = count_samples(data_samples, self.ignore_index)
        self.results += [self._labelled(*pair) for pair in zip(data_samples, counts)]

    def _labelled(self, sample: dict, counts: np.ndarray) -> _Labelled:
        if 'cleaned' not in sample and 'reviewed' not in sample:
            raise ValueError(
                'CleanReferringIoU needs a data set with gt_overlay or reviewed, and '
                'LoadReferentMask in the test pipeline'
            )
        scores = clean = self._score(sample, counts)
        cleaned = np.zeros(len(counts), dtype=bool)
        if 'cleaned' in sample:
            cleaned = np.array(sample['cleaned'], dtype=bool)
            other = dict(sample, gt_sem_seg=sample['gt_clean_seg'])
            clean = self._score(other, count_samples([other], self.ignore_index)[0])
        reviewed = np.array(sample.get('reviewed', [None] * len(counts)), dtype=object)
        return _Labelled(scores, clean, cleaned, reviewed)

    def compute_metrics(self, results: list[_Labelled]) -> dict[str, float]:
        """Measure all expressions and each set, and log a table.

        Args:
            results: What :meth:`process` kept, of all ranks.

        Returns:
            As :meth:`ReferringIoU.compute_metrics`, and the measures of each set.
        """
        metrics = super().compute_metrics([one.scores for one in results])
        if not results:
            return metrics
        clean = ExpressionScores.join([one.clean for one in results])
        cleaned = np.concatenate([one.cleaned for one in results])
        reviewed = np.concatenate([one.reviewed for one in results])
        right, wrong = (reviewed == value for value in (True, False))
        sets = {
            'reviewed': (self.scores, right),
            'rejected': (self.scores, wrong),
            'cleanable': (self.scores, cleaned),
            'clean': (clean, cleaned),
            'clean_right': (clean, cleaned & right),
        }
        rows = {'all': {**self.scores.summary(self.thresholds), 'expressions': len(clean)}}
        for name, (scores, where) in sets.items():
            if where.any():
                measures = scores.summary(self.thresholds, where)
                rows[name] = {**measures, 'expressions': int(where.sum())}
                metrics.update({f'{name}/{key}': float(x) for key, x in rows[name].items()})
        table = PrettyTable(['ground truth', *rows['all']])
        table.add_rows([[name, *(f'{x:.5g}' for x in row.values())] for name, row in rows.items()])
        print_log(f'per cent, by ground truth\n{table.get_string()}', logger='current')
        return metrics
