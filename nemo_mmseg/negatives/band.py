"""The band: the part of an expression's ranking from which negatives are drawn."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

TAU_MODES = ('relative', 'absolute', 'margin', 'rank')
_RANGES = dict(absolute=(-1, 1), margin=(0, 2))
# Few images are as similar as the own one: a larger share drops none; it was meant as a percentage
# or a rank.
_MOST_SHARE = 2
_NONE = np.zeros(0, np.int64)


class Band(NamedTuple):
    """The part of an expression's ranking from which negatives are drawn.

    Attributes:
        rows: Image rows (n,), by falling similarity.
        similarities: (n,) float16.
        truncated: The band reaches below the stored images though the pool has more.
        self_similarity: Similarity of the expression to its own image.
        above: Stored images above tau, which come before the band in the ranking.
        dropped: Rows (m,) of the images below tau that were left out between those of the band,
            because they are too similar to the expression's own image.
    """

    rows: np.ndarray
    similarities: np.ndarray
    truncated: bool
    self_similarity: float
    above: int
    dropped: np.ndarray = _NONE


class BandRule(NamedTuple):
    """Which images of a ranking make the band; the arguments of :meth:`NegativeBank.band`.

    Attributes:
        tau: The upper threshold. None sets none, so that ``i2i_sim_thres`` alone counts.
        tau_mode: How ``tau`` is meant, with s the expression's similarity to its own image.
            ``'relative'``: images above the share tau * s are dropped; for a CLIP with negative
            similarities ``'margin'`` is the better choice: those above s - tau are dropped
            (NV-Retriever's two positive-aware margins, arXiv 2407.15831). ``'absolute'``: those
            above tau itself (as published; such a tau belongs to one CLIP). ``'rank'``: the first
            ``tau`` images of the ranking.
        top_k: Images in the band.
        i2i_sim_thres: Images whose vector has a larger cosine than this with that of the
            expression's own image are dropped, too. None drops none.
    """

    tau: float | None = 0.95
    tau_mode: str = 'relative'
    top_k: int = 100
    i2i_sim_thres: float | None = None

    def check(self, keep: int | None = None) -> None:
        """Refuse values that mean nothing or contradict one another.

        Args:
            keep: Images that the bank stores an expression, where it is known.

        Raises:
            ValueError: They do.
        """
        tau, mode, top_k, most = self
        if mode not in TAU_MODES:
            raise ValueError(f'tau_mode={mode!r} is none of {TAU_MODES}')
        if not isinstance(top_k, Integral) or top_k < 1:
            raise ValueError(f'top_k={top_k} must be a positive whole number')
        if most is not None and not -1 < most < 1:
            raise ValueError(
                f'i2i_sim_thres={most} must be between -1 and 1, the cosines it is compared with'
            )
        if tau is None:
            if most is None:
                raise ValueError(
                    'tau=None needs i2i_sim_thres: otherwise nothing drops the images that show '
                    "the referent (if that is wanted: tau=0, tau_mode='rank')"
                )
        elif mode == 'rank':
            if tau < 0 or tau != int(tau):
                raise ValueError(f"tau={tau} counts images in tau_mode='rank': 0, 1, 2, ...")
            if keep is not None and tau >= keep:
                raise ValueError(
                    f"tau={tau} (tau_mode='rank') skips all of the keep={keep} images that the "
                    'bank stores an expression'
                )
        elif mode == 'relative' and not tau > 0:
            raise ValueError(f'tau={tau} must be positive in tau_mode={mode!r}')
        elif mode == 'relative' and tau > _MOST_SHARE:
            raise ValueError(
                f"tau={tau} is too large a share of the expression's similarity to its own image "
                f"(tau_mode='relative'): 0.95 is 95 %, {_MOST_SHARE} the most. To drop the first "
                "images of the ranking, tau_mode='rank'"
            )
        elif mode in _RANGES and not _RANGES[mode][0] <= tau <= _RANGES[mode][1]:
            raise ValueError(
                f'tau={tau} must be in {_RANGES[mode]} in tau_mode={mode!r}: similarities are '
                'cosines'
            )

    def __str__(self) -> str:
        text = f'tau={self.tau} ({self.tau_mode}), top_k={self.top_k}'
        if self.i2i_sim_thres is not None:
            text += f', i2i_sim_thres={self.i2i_sim_thres}'
        return text


def _threshold(tau: float | None, tau_mode: str, own: Any) -> Any:
    """The largest similarity that is allowed; ``own`` may be an array."""
    if tau_mode not in TAU_MODES:
        raise ValueError(f'tau_mode must be one of {TAU_MODES}, not {tau_mode!r}')
    if tau is None or tau_mode == 'rank':
        return math.inf
    if tau_mode == 'relative':
        return tau * own
    return own - tau if tau_mode == 'margin' else tau


def band_start(similarities: np.ndarray, own: float, tau: float | None, tau_mode: str) -> int:
    """How many images of a ranking tau drops.

    Args:
        similarities: Of the stored images (M,), falling.
        own: Similarity of the expression to its own image.
        tau: See :class:`BandRule`.
        tau_mode: See :class:`BandRule`.

    Returns:
        Position of the first image below tau, at most M.
    """
    threshold = _threshold(tau, tau_mode, own)
    if tau is None or tau_mode == 'rank':
        return min(int(tau or 0), len(similarities))
    # Falling values from behind are rising ones. In float64, as the threshold shall not be rounded.
    rising = similarities[::-1].astype(np.float64)
    return len(similarities) - int(rising.searchsorted(threshold, side='right'))


def band_starts(
    similarities: np.ndarray, own: np.ndarray, tau: float | None, tau_mode: str
) -> np.ndarray:
    """:func:`band_start` of many rankings (E, M) at once: (E,) int64, for ``own`` (E,)."""
    stored = similarities.shape[1]
    threshold = np.broadcast_to(_threshold(tau, tau_mode, own), own.shape)
    if tau is None or tau_mode == 'rank':
        return np.full(len(own), min(int(tau or 0), stored), np.int64)
    # Bisection of all rows of the block at once.
    low = np.zeros(len(own), np.int64)
    high = np.full(len(own), stored, np.int64)
    while (open_rows := np.flatnonzero(low < high)).size:
        middle = (low[open_rows] + high[open_rows]) // 2
        above = similarities[open_rows, middle] > threshold[open_rows]
        low[open_rows[above]] = middle[above] + 1
        high[open_rows[~above]] = middle[~above]
    return low


def first_unlike(
    rows: np.ndarray, vectors: np.ndarray, own: np.ndarray, most: float, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first images of a ranking that do not look like another image.

    No more of the ranking is looked at than it takes.

    Args:
        rows: Rows (n,) into ``vectors``, in the order of the ranking.
        vectors: Unit vectors (I, D) float16 of the images.
        own: Unit vector (D,) of the other image.
        most: The largest cosine that is allowed.
        number: How many images are wanted.

    Returns:
        Positions in ``rows`` of the images found, at most ``number``, and of those dropped before
        the last of them (of all that were dropped where fewer are found).
    """
    # In float64 the sums of products of float16 are as good as exact, hence the same everywhere.
    own, alike = own.astype(np.float64), np.zeros(0, bool)
    while len(alike) < len(rows) and len(alike) - np.count_nonzero(alike) < number:
        part = rows[len(alike) : len(alike) + number + 16]
        cosines = np.einsum('nd,d->n', vectors[part].astype(np.float64), own)
        alike = np.append(alike, cosines > most)
    found = np.flatnonzero(~alike)[:number]
    end = found[-1] + 1 if len(found) == number else len(alike)
    return found, np.flatnonzero(alike[:end])
