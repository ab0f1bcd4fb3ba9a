"""Bootstrap intervals for the difference of two runs on the same expressions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .expression_scores import ExpressionScores
from .iou import iou_values, precision_key

BLOCK = 500  # resamples drawn at once: their counts of 1,500 images take 6 MB


@dataclass(frozen=True)
class PairedDifference:
    """Measures of two runs on S sets of expressions, and intervals of their difference.

    All values are in per cent, (S, M) float64, nan where a set holds no expression.

    Args:
        measures: Names of the M measures: oIoU, mIoU and Pr@X.
        first: Measures of the first run.
        second: Measures of the second run.
        low: Lower end of the interval of second minus first; nan where a set lies in fewer than two
            images, from which nothing can be resampled.
        high: Upper end.
    """

    measures: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """(S, M), second minus first."""
        return self.second - self.first


def paired_bootstrap(
    first: ExpressionScores,
    second: ExpressionScores,
    sets: np.ndarray | None = None,
    thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Percentile intervals for the difference of two runs, by resampling images.

    Expressions of one image share its difficulty, so they are not independent: whole images are
    drawn with replacement, as many as there are, and each brings all its expressions. Both runs and
    all sets use the same draws (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8
    and 13). Of a set of expressions, draws that hold none are left out. An interval says how far
    the choice of test images can move the difference; the spread over training seeds is not in it.

    Args:
        first: Run that is subtracted; E expressions.
        second: The other run, the same expressions in the same order.
        sets: (S, E) bool, the sets of expressions to compare; None for one set of all.
        thresholds: IoU values X of Pr@X.
        resamples: Number of draws. Defaults to 10,000.
        level: Share of the draws inside an interval, in (0, 1). Defaults to 0.95.
        seed: Of the draws. Defaults to 0.

    Returns:
        The measures and the intervals.

    Raises:
        ValueError: If the runs do not hold the same expressions or count them by different rules,
            or an option is out of its range.
    """
    if not np.array_equal(first.sent_ids, second.sent_ids):
        raise ValueError('the two runs must hold the same expressions in the same order')
    if (first.empty_union, first.tie) != (second.empty_union, second.tie):
        raise ValueError(
            f'the two runs count by different rules: empty_union={first.empty_union:g} and '
            f'tie={first.tie!r} against {second.empty_union:g} and {second.tie!r}'
        )
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f'resamples={resamples} must be positive, level={level} in (0, 1)')
    if not len(first):
        raise ValueError('there are no expressions to compare')
    sets = np.ones((1, len(first)), dtype=bool) if sets is None else np.asarray(sets, dtype=bool)
    sums = _sums_by_image(first, second, sets, thresholds)
    whole = _measures(sums.sum(0), first.empty_union)
    drawn = np.empty((resamples, *whole.shape[1:]))
    done = 0
    for weights in image_weights(len(sums), resamples, seed):
        block = (weights @ sums.reshape(len(sums), -1)).reshape(-1, *sums.shape[1:])
        measures = _measures(block, first.empty_union)
        drawn[done : done + len(weights)] = measures[:, 1] - measures[:, 0]
        done += len(weights)
    low, high = np.full((2, *whole.shape[1:]), np.nan)
    for row in np.flatnonzero((sums[:, 0, :, -1] > 0).sum(0) > 1):
        held = drawn[~np.isnan(drawn[:, row, 0]), row]
        if len(held):
            low[row], high[row] = np.quantile(held, [(1 - level) / 2, (1 + level) / 2], axis=0)
    names = ('oIoU', 'mIoU', *map(precision_key, thresholds))
    return PairedDifference(names, *whole, low, high)


def image_weights(num_images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is in each resample.

    Args:
        num_images: Images I, of which each resample draws I with replacement.
        resamples: Number of resamples R.
        seed: Of the draws.

    Yields:
        (B, I) float64 whole numbers, each row with the sum I; in all R rows.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - start)
        drawn = rng.integers(num_images, size=(size, num_images))
        drawn += num_images * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_images)
        yield counts.reshape(size, num_images).astype(np.float64)


def _sums_by_image(
    first: ExpressionScores,
    second: ExpressionScores,
    sets: np.ndarray,
    thresholds: Sequence[float],
) -> np.ndarray:
    """Sums over the expressions of each image, from which every measure is a ratio.

    Returns:
        (I, 2, S, 4 + X): of both runs the intersections, unions, IoU, hits at each threshold, and
        the number of expressions.
    """
    columns = []
    for run in (first, second):
        iou = run.iou
        hits = [iou >= x if run.tie == '>=' else iou > x for x in thresholds]
        ones = np.ones(len(run))
        columns.append(np.stack([run.intersection, run.union, iou, *hits, ones], axis=1))
    values = np.stack(columns, axis=1)  # (E, 2, 4 + X)
    _, image = np.unique(first.images, return_inverse=True)
    order = np.argsort(image, kind='stable')
    starts = np.searchsorted(image[order], np.arange(image.max() + 1))
    sums = [np.add.reduceat((values * held[:, None, None])[order], starts) for held in sets]
    return np.stack(sums, axis=2)


def _measures(sums: np.ndarray, empty_union: float) -> np.ndarray:
    """oIoU, mIoU and Pr@X in per cent, (..., 2 + X), of sums (..., 4 + X)."""
    number = sums[..., -1:]
    overall = iou_values(sums[..., :1], sums[..., 1:2], empty_union)
    means = np.divide(sums[..., 2:-1], number, out=np.zeros_like(sums[..., 2:-1]), where=number > 0)
    measures = np.concatenate([overall, means], axis=-1)
    return 100.0 * np.where(number > 0, measures, np.nan)
