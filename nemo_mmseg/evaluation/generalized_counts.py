"""What is counted of expressions that may describe nothing, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .iou import image_name, precision_key

NO_TARGET = ('auto', 'area', 'score')


@dataclass(frozen=True)
class NoTargetRule:
    """How a network says "nothing is described".

    Args:
        no_target: `'score'`, its `no_target` (N,) is above `score_threshold`; `'area'`, its mask
            has fewer than `min_pixels` pixels; `'auto'`, by score where there is one.
        min_pixels: At the size at which masks are compared.
        score_threshold: 0 for a difference of logits; 0.5 suits probabilities.

    Raises:
        ValueError: `no_target` is unknown, or `min_pixels` is out of range.
    """

    no_target: str = 'auto'
    min_pixels: int = 50
    score_threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.no_target not in NO_TARGET:
            raise ValueError(f'no_target must be one of {NO_TARGET}, got {self.no_target!r}')
        if self.min_pixels < 1:
            raise ValueError(f'min_pixels must be at least 1, got {self.min_pixels}')

    def said_empty(self, sample: dict, predicted: np.ndarray) -> np.ndarray:
        """Where the network says that nothing is described.

        Args:
            sample: Data sample as a dict.
            predicted: (N,) pixels of the predicted masks.

        Returns:
            (N,) bool.
        """
        scores = sample.get('no_target')
        if self.no_target == 'area' or (self.no_target == 'auto' and scores is None):
            return predicted < self.min_pixels
        if scores is None:
            raise KeyError(
                f'{image_name(sample)}: the data sample has no `no_target`; does the head return '
                "scores? no_target='area' does without"
            )
        said = torch.as_tensor(scores).cpu().numpy() > self.score_threshold
        return _fitting(said, len(predicted), 'no_target', sample)


@dataclass
class GeneralizedCounts:
    """What is counted of E expressions.

    Args:
        intersection: (E,) int64, pixels.
        union: (E,) int64, pixels.
        said_empty: (E,) bool, the network says that nothing is described.
        is_empty: (E,) bool, nothing is.
    """

    intersection: np.ndarray
    union: np.ndarray
    said_empty: np.ndarray
    is_empty: np.ndarray

    def __post_init__(self) -> None:
        # What is called empty shares no pixel with the truth, but its union stays; nothing called
        # nothing leaves both sums alone.
        self.intersection = np.where(self.is_empty | self.said_empty, 0, self.intersection)
        self.union = np.where(self.right, 0, self.union)

    @classmethod
    def of_sample(cls, sample: dict, counts: np.ndarray, rule: NoTargetRule) -> GeneralizedCounts:
        """What is counted of one data sample.

        Args:
            sample: Data sample as a dict. An expression describes nothing where its `num_targets`
                is 0; without `num_targets`, where the true mask is empty.
            counts: (N, 4) of :func:`count_sample`.
            rule: How the network says so.
        """
        intersection, union, area, _ = counts.T
        number = area if sample.get('num_targets') is None else np.asarray(sample['num_targets'])
        return cls(
            intersection,
            union,
            rule.said_empty(sample, predicted=union - area + intersection),
            _fitting(number == 0, len(area), 'num_targets', sample),
        )

    @property
    def right(self) -> np.ndarray:
        """(E,) bool, where nothing is called nothing."""
        return self.is_empty & self.said_empty

    @property
    def iou(self) -> np.ndarray:
        """(E,) float64 in 0..1."""
        iou = self.right.astype(np.float64)
        return np.divide(self.intersection, self.union, out=iou, where=self.union > 0)

    def ratios(self, thresholds: Sequence[float]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Each measure by the two values of an expression whose sums are divided.

        Args:
            thresholds: IoU values X of Pr@X.

        Returns:
            Measure to the pair of (E,) values; the overall IoU is the first, the mean the second.
        """
        has, iou = ~self.is_empty, self.iou
        return {
            'cIoU': (self.intersection, self.union),
            'gIoU': (iou, np.ones(len(iou))),
            'N-acc': (self.right, self.is_empty),
            'T-acc': (has & ~self.said_empty, has),
            **{precision_key(x): (has & (iou >= x), has) for x in thresholds},
        }

    def summary(self, thresholds: Sequence[float] = (0.7, 0.8, 0.9)) -> dict[str, float]:
        """The published measures.

        Args:
            thresholds: IoU values X of Pr@X.

        Returns:
            `gIoU`, `cIoU` and `Pr@X` in per cent, `N-acc` and `T-acc` as shares; nan where there is
            nothing to divide by.
        """
        summary = {
            name: float(above.sum()) / float(below.sum()) if below.any() else float('nan')
            for name, (above, below) in self.ratios(thresholds).items()
        }
        if not self.is_empty.any():
            # Published: without an expression of nothing, neither accuracy is measured.
            summary.update({'N-acc': 0.0, 'T-acc': 0.0})
        shares = ('N-acc', 'T-acc')
        return {key: value if key in shares else 100 * value for key, value in summary.items()}


def _fitting(values: np.ndarray, number: int, key: str, sample: dict) -> np.ndarray:
    if values.shape != (number,):
        raise ValueError(
            f'{image_name(sample)}: `{key}` of shape {values.shape} for {number} expressions'
        )
    return values
