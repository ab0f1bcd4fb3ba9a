"""What a mosaic will show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .mosaic_grid import Edges


@dataclass(frozen=True)
class MosaicPlan:
    """What a mosaic will show, before any image is read.

    Attributes:
        kind: ``'mined'`` or ``'random'``.
        cell: Cell of the referent's image, row by row.
        names: File names of the negatives, in the order of the other cells.
        similarities: Their similarities to the expression; NaN for random images.
        edges: Pixels at which rows and columns begin, and the last ones end.
        places: Where each negative is cropped, in [0, 1); empty where it is stretched.
        self_similarity: Similarity of the expression to its own image; NaN for a random mosaic.
        short: How many negatives the band lacked, so that random images took their places.
        exhausted: Whether the band reached below the stored neighbours.
    """

    kind: str
    cell: int
    names: tuple[str, ...]
    similarities: tuple[float, ...]
    edges: Edges
    places: tuple[float, ...] = ()
    self_similarity: float = float('nan')
    short: int = 0
    exhausted: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.edges[0]) - 1, len(self.edges[1]) - 1

    def record(self) -> dict[str, Any]:
        """The plan as it travels with the sample."""
        return dict(
            kind=self.kind,
            cell=self.cell,
            grid=self.grid,
            edges=self.edges,
            names=list(self.names),
            similarities=list(self.similarities),
            self_similarity=self.self_similarity,
            short=self.short,
            exhausted=self.exhausted,
        )
