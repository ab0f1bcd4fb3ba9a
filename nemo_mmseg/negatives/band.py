"""The band: the part of an expression's ranking from which negatives are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

# By mode: the lowest tau, the highest one, and what tau is. A share above 2 would drop nothing.
TAU_MODES = {
    'relative': (0, 2, "a share of the expression's similarity to its own image"),
    'margin': (0, 2, 'a difference of cosines'),
    'absolute': (-1, 1, 'a cosine'),
    'rank': (0, math.inf, 'a whole number of images'),
}


@dataclass(frozen=True)
class Band:
    """The part of an expression's ranking from which negatives are drawn.

    Attributes:
        rows: Image rows ``(n,)``, by falling similarity.
        similarities: ``(n,)`` float16.
        truncated: Whether the bank stores too few images to fill the band (mine with a larger
            ``keep``).
        self_similarity: Similarity of the expression to its own image.
        num_above: Stored images above tau, which come before the band in the ranking.
        dropped: Rows ``(m,)`` of images below tau that were left out because they are too similar
            to the expression's own image.
    """

    rows: np.ndarray
    similarities: np.ndarray
    truncated: bool
    self_similarity: float
    num_above: int
    dropped: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class BandRule:
    """Which images of a ranking make the band.

    Let s be the expression's similarity to its own image. The first two modes are the
    positive-aware margins of NV-Retriever (arXiv 2407.15831).

    Attributes:
        tau: The upper threshold. None sets none, so that ``i2i_sim_thres`` alone counts.
        tau_mode: ``'relative'`` drops images above ``tau * s``. ``'margin'`` drops those above
            ``s - tau``; it suits CLIPs with negative similarities. ``'absolute'`` drops those above
            ``tau`` itself, as published; such a tau belongs to one CLIP. ``'rank'`` drops the first
            ``tau`` images of the ranking.
        top_k: Images in the band.
        i2i_sim_thres: Images whose vector has a larger cosine than this with that of the
            expression's own image are dropped, too. None drops none.

    Raises:
        ValueError: The values mean nothing.
    """

    tau: float | None = 0.95
    tau_mode: str = 'relative'
    top_k: int = 100
    i2i_sim_thres: float | None = None

    def __post_init__(self) -> None:
        if self.tau_mode not in TAU_MODES:
            raise ValueError(f'tau_mode={self.tau_mode!r} is none of {list(TAU_MODES)}')
        lowest, highest, meaning = TAU_MODES[self.tau_mode]
        tau, i2i = self.tau, self.i2i_sim_thres
        whole = tau is None or self.tau_mode != 'rank' or tau == int(tau)
        if not whole or (tau is not None and not lowest <= tau <= highest):
            raise ValueError(
                f'tau={tau} must be {meaning}, from {lowest} to {highest}, in '
                f'tau_mode={self.tau_mode!r}'
            )
        if not (self.top_k >= 1 and self.top_k == int(self.top_k)):
            raise ValueError(f'top_k={self.top_k} must be a positive whole number')
        if i2i is not None and not -1 < i2i < 1:
            raise ValueError(f'i2i_sim_thres={i2i} must be a cosine between -1 and 1')
        if tau is None and i2i is None:
            raise ValueError(
                'tau=None needs i2i_sim_thres: otherwise nothing drops the images that show the '
                "referent. If you want that, write tau=0, tau_mode='rank'"
            )

    def check(self, keep: int, needed: int) -> None:
        """Refuse a band that is too small for every expression.

        Args:
            keep: Images that the bank stores per expression.
            needed: Negatives that a sample needs.

        Raises:
            ValueError: Samples would be mostly random ones, or never made.
        """
        most = min(self.top_k, keep - int(self.tau or 0) if self.tau_mode == 'rank' else keep)
        if most < needed:
            raise ValueError(
                f'{self} of a bank with keep={keep} gives at most {max(most, 0)} mined negatives, '
                f'but a sample needs {needed}'
            )

    def threshold(self, self_similarity: np.ndarray | float) -> np.ndarray | float:
        """Return the largest similarity that tau allows, by the similarity to its own image."""
        if self.tau is None or self.tau_mode == 'rank':
            return math.inf
        if self.tau_mode == 'absolute':
            return self.tau
        share = self.tau_mode == 'relative'
        return self.tau * self_similarity if share else self_similarity - self.tau

    def start(self, similarities: np.ndarray, self_similarity: float) -> int:
        """Count how many images of a ranking tau drops.

        Args:
            similarities: Of the stored images ``(M,)``, falling.
            self_similarity: Of the expression to its own image.

        Returns:
            The position of the first image below tau, at most M.
        """
        if self.tau_mode == 'rank':
            return min(int(self.tau or 0), len(similarities))
        # From behind they rise. In float64, so that the threshold is not rounded to float16.
        rising = similarities[::-1].astype(np.float64)
        below = rising.searchsorted(self.threshold(self_similarity), side='right')
        return len(similarities) - int(below)

    def starts(self, similarities: np.ndarray, self_similarity: np.ndarray) -> np.ndarray:
        """Do as :meth:`start` for many rankings at once.

        Args:
            similarities: ``(E, M)``, falling.
            self_similarity: ``(E,)``.

        Returns:
            ``(E,)`` int64.
        """
        number, stored = similarities.shape
        if self.tau_mode == 'rank':
            return np.full(number, min(int(self.tau or 0), stored), np.int64)
        threshold = np.broadcast_to(self.threshold(self_similarity.astype(np.float64)), number)
        low, high = np.zeros(number, np.int64), np.full(number, stored, np.int64)
        while (rows := np.flatnonzero(low < high)).size:  # bisection of all rows
            middle = (low[rows] + high[rows]) // 2
            above = similarities[rows, middle] > threshold[rows]
            low[rows[above]] = middle[above] + 1
            high[rows[~above]] = middle[~above]
        return low

    def __str__(self) -> str:
        text = f'tau={self.tau} ({self.tau_mode}), top_k={self.top_k}'
        if self.i2i_sim_thres is not None:
            text += f', i2i_sim_thres={self.i2i_sim_thres}'
        return text
