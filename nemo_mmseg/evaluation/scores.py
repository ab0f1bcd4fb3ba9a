"""The scores of every evaluated expression, and the measures that are made of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from .iou import image_name, iou_values
from .predictions_schema import HEAD, PREDICTIONS, SCORED, check_counts, load_predictions


@dataclass(frozen=True)
class NoTargetRule:
    """When a prediction means that the expression has no target.

    Args:
        no_target: ``'score'``: its score ``no_target``, from the network, is above
            ``score_threshold``. ``'area'``: its mask has fewer than ``min_pixels`` pixels.
            ``'auto'``: by score if the network gives one, else by area. ``'either'``: by score, if
            the network gives one, or by area. Defaults to ``'auto'``.
        min_pixels: At the size at which masks are compared. Defaults to 50.
        score_threshold: Defaults to 0, for a difference of logits; 0.5 suits probabilities.

    Raises:
        ValueError: ``no_target`` is none of the four.
    """

    no_target: str = 'auto'
    min_pixels: int = 50
    score_threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.no_target not in ('auto', 'area', 'score', 'either'):
            raise ValueError(
                f"no_target={self.no_target!r} is none of 'auto', 'area', 'score', 'either'"
            )

    def predicted(self, sample: dict, pixels: np.ndarray) -> np.ndarray:
        """Return which of N predictions mean no target, as ``(N,)`` bool.

        Args:
            sample: Data sample as a dict, perhaps with the scores ``no_target``.
            pixels: Pixels of the predicted masks, ``(N,)``.
        """
        small = pixels < self.min_pixels
        if self.no_target == 'area' or (self.no_target != 'score' and 'no_target' not in sample):
            return small
        if 'no_target' not in sample:
            raise ValueError(
                f'{sample.get("img_path")}: the network has no no-target output. Use '
                "no_target='area'"
            )
        told = torch.as_tensor(sample['no_target']).cpu().numpy() > self.score_threshold
        return told | small if self.no_target == 'either' else told


# The type of each column, the key of its values in a record of predictions.json, and what stands
# there for an unknown value.
_COLUMNS = dict(
    intersection=(np.int64, 'intersection', None),
    union=(np.int64, 'union', None),
    target_area=(np.float64, 'target_area', None),
    num_distractors=(np.int64, 'num_distractors', -1),
    sent_ids=(np.int64, 'sent_id', -1),
    ref_ids=(np.int64, 'ref_id', -1),
    images=(object, 'image', ''),
    expressions=(object, 'expression', ''),
    datasets=(object, 'dataset', ''),
    no_target=(bool, 'no_target', False),
    predicted_no_target=(bool, 'predicted_no_target', False),
)


@dataclass
class ExpressionScores:
    """A table of E evaluated expressions, for totals and for slices by difficulty.

    The columns may be given as lists. A predicted no-target has no intersection, and a right one
    has no union either.

    Args:
        intersection: Pixels, ``(E,)`` int64.
        union: Pixels, ``(E,)`` int64.
        target_area: Share of the image that the ground truth covers, 0..1, ``(E,)`` float64.
        num_distractors: Other objects of the referent's category, -1 if unknown, ``(E,)`` int64.
        sent_ids: ``(E,)`` int64, -1 if unknown.
        images: Paths, or other names, of the images, ``(E,)`` str.
        expressions: ``(E,)`` str, empty if unknown.
        datasets: Names of the data sets, ``(E,)`` str, empty if unknown.
        no_target: The expression has no target, ``(E,)`` bool.
        predicted_no_target: The network says so, ``(E,)`` bool.
        generalized: Whether expressions may have no target, so that they are measured as in
            :class:`GeneralizedReferringIoU`. Defaults to False.
        empty_union: IoU where ground truth and prediction are both empty; of no meaning if
            ``generalized``. Defaults to 1.0.
        tie: ``'>='`` or ``'>'``: whether an IoU of exactly X counts in Pr@X. Defaults to ``'>='``.
        measures: Further measures by name, each ``(E,)`` in 0..1, whose means are reported.
        ref_ids: ``(E,)`` int64, -1 if unknown. Defaults to None: all are unknown.

    Raises:
        ValueError: The columns differ in length.
    """

    intersection: np.ndarray
    union: np.ndarray
    target_area: np.ndarray
    num_distractors: np.ndarray
    sent_ids: np.ndarray
    images: np.ndarray
    expressions: np.ndarray
    datasets: np.ndarray
    no_target: np.ndarray
    predicted_no_target: np.ndarray
    generalized: bool = False
    empty_union: float = 1.0
    tie: str = '>='
    measures: dict[str, np.ndarray] = field(default_factory=dict)
    ref_ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.ref_ids is None:
            self.ref_ids = np.full(len(self.sent_ids), -1)
        for name, (dtype, *_) in _COLUMNS.items():
            setattr(self, name, np.asarray(getattr(self, name), dtype=dtype))
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        lengths.update({name: len(values) for name, values in self.measures.items()})
        if len(set(lengths.values())) > 1:
            raise ValueError(f'{self.images[:1]}: the numbers of values differ: {lengths}')
        either = self.no_target | self.predicted_no_target
        self.intersection = np.where(either, 0, self.intersection)
        self.union = np.where(self.no_target & self.predicted_no_target, 0, self.union)

    @classmethod
    def of_sample(
        cls,
        sample: dict,
        counts: np.ndarray,
        rule: NoTargetRule | None = None,
        empty_union: float = 1.0,
        tie: str = '>=',
    ) -> ExpressionScores:
        """Make the table of one data sample. It is small, and pickles between ranks.

        Args:
            sample: Data sample as a dict. With a ``rule``, expressions have no target where its
                ``num_targets`` is 0, or, if it has none, where the ground truth is empty.
            counts: Its ``(N, 4)`` of :func:`count_samples`.
            rule: What a predicted no-target is; None where each expression has a target.
            empty_union: See the class.
            tie: See the class.
        """
        intersection, union, area, pixels = counts.T

        def column(key: str, unknown: object) -> Sequence:
            values = sample.get(key)
            return [unknown] * len(counts) if values is None else values

        no_target = predicted = np.zeros(len(counts), bool)
        if rule is not None:
            targets = sample.get('num_targets')
            no_target = (area if targets is None else np.asarray(targets)) == 0
            predicted = rule.predicted(sample, union - area + intersection)
        return cls(
            intersection=intersection,
            union=union,
            target_area=area / pixels,
            num_distractors=column('num_distractors', -1),
            sent_ids=column('sent_ids', -1),
            ref_ids=column('ref_ids', -1),
            images=[image_name(sample)] * len(counts),
            expressions=column('expressions', ''),
            datasets=[sample.get('dataset_name') or ''] * len(counts),
            no_target=no_target,
            predicted_no_target=predicted,
            generalized=rule is not None,
            empty_union=empty_union,
            tie=tie,
        )

    @classmethod
    def read(cls, path: str | os.PathLike) -> ExpressionScores:
        """Read what ``tools/test.py --out`` wrote.

        Args:
            path: The folder, or its ``predictions.json``.

        Raises:
            FileNotFoundError: There is no such file; names the folders below that have one.
            DataError: A field holds what it must not, or the file was written without ground truth.
            ValueError: The file is damaged.
        """
        path = Path(path)
        file = path / PREDICTIONS if path.is_dir() else path
        if not file.is_file():
            below = sorted(str(found.parent) for found in path.glob(f'*/{PREDICTIONS}'))
            hint = f'; did you mean one of {below}?' if below else ''
            raise FileNotFoundError(f'there are no results of tools/test.py --out in {path}{hint}')
        content = load_predictions(str(file), SCORED, HEAD)
        records = content['predictions']
        check_counts(records, str(file))
        columns = {
            name: [unknown if record.get(key) is None else record[key] for record in records]
            for name, (_, key, unknown) in _COLUMNS.items()
        }
        rules = {key: content[key] for key in ('empty_union', 'tie')}
        return cls(**columns, generalized=content['no_target_rule'] is not None, **rules)

    @classmethod
    def join(cls, parts: Sequence[ExpressionScores]) -> ExpressionScores:
        """Put tables one below the other; the settings are those of the first."""
        columns = {name: [getattr(part, name) for part in parts] for name in _COLUMNS}
        measures = {
            name: np.concatenate([part.measures[name] for part in parts])
            for name in parts[0].measures
        }
        joined = {key: np.concatenate(of) for key, of in columns.items()}
        return replace(parts[0], **joined, measures=measures)

    def take(self, rows: np.ndarray) -> ExpressionScores:
        """Return the table of some expressions, in the order of ``rows``, ``(n,)`` int64."""
        measures = {name: values[rows] for name, values in self.measures.items()}
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return replace(self, **columns, measures=measures)

    def __len__(self) -> int:
        return len(self.union)

    @property
    def num_images(self) -> int:
        """Number of different images."""
        return len(set(self.images))

    @property
    def image_index(self) -> np.ndarray:
        """Index 0..I-1 of each expression's image among their sorted names, ``(E,)`` int64."""
        return np.unique(self.images, return_inverse=True)[1]

    @property
    def iou(self) -> np.ndarray:
        """IoU in 0..1, ``(E,)`` float64."""
        right = self.no_target & self.predicted_no_target
        empty = right if self.generalized else self.empty_union
        return iou_values(self.intersection, self.union, empty)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The usual X of Pr@X."""
        return (0.7, 0.8, 0.9) if self.generalized else (0.5, 0.6, 0.7, 0.8, 0.9)

    def ratios(
        self, thresholds: Sequence[float] | None = None
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return what each measure divides, expression by expression.

        Args:
            thresholds: The X of Pr@X; None for the usual ones.

        Returns:
            For each measure two ``(E,)``. The sum of the first over the sum of the second is the
            measure. The overall IoU is the first measure, the mean IoU the second.
        """
        thresholds = self.thresholds if thresholds is None else thresholds
        iou, has_target, every = self.iou, ~self.no_target, np.ones(len(self))
        hits = {
            f'Pr@{x:g}': (has_target & (iou >= x if self.tie == '>=' else iou > x), has_target)
            for x in thresholds
        }
        overall, mean = (self.intersection, self.union), (iou, every)
        if not self.generalized:
            further = {name: (values, every) for name, values in self.measures.items()}
            return {'oIoU': overall, 'mIoU': mean, **hits, **further}
        return {
            'cIoU': overall,
            'gIoU': mean,
            'N-acc': (self.no_target & self.predicted_no_target, self.no_target),
            'T-acc': (has_target & ~self.predicted_no_target, has_target),
            **hits,
        }

    def percentages(self, sums: np.ndarray) -> np.ndarray:
        """Divide sums of :meth:`ratios`.

        Args:
            sums: ``(..., M, 2)``.

        Returns:
            Measures in per cent, ``(..., M)``; nan where there is nothing to divide by.
        """
        above, below = sums[..., 0], sums[..., 1]
        measures = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
        if not self.generalized:  # empty_union counts where there are expressions
            empty = (below[..., 0] == 0) & (below[..., 1] > 0)
            measures[..., 0] = np.where(empty, self.empty_union, measures[..., 0])
        return 100.0 * measures

    def summary(
        self, thresholds: Sequence[float] | None = None, where: np.ndarray | None = None
    ) -> dict[str, float]:
        """Measure all expressions, or a slice of them.

        Args:
            thresholds: The X of Pr@X; None for the usual ones.
            where: The expressions that count, ``(E,)`` bool; None for all.

        Returns:
            ``oIoU``, ``mIoU``, ``Pr@X`` and ``measures``, or, if ``generalized``, ``cIoU``,
            ``gIoU``, ``N-acc``, ``T-acc`` and ``Pr@X``: in per cent, but N-acc and T-acc in 0..1,
            as published. Those two are 0 without a no-target expression. Else nan if there is
            nothing to divide by.
        """
        rows = slice(None) if where is None else where
        ratios = self.ratios(thresholds)
        sums = np.array([[part[rows].sum() for part in pair] for pair in ratios.values()])
        summary = dict(zip(ratios, self.percentages(sums.astype(np.float64)).tolist()))
        if self.generalized:
            measured = self.no_target[rows].any()
            for key in ('N-acc', 'T-acc'):
                summary[key] = summary[key] / 100 if measured else 0.0
        return summary
