"""Into which cells a mosaic is divided, and where the lines between them lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Edges = tuple[tuple[int, ...], tuple[int, ...]]
Window = tuple[slice, slice]


class MosaicGrid:
    """A grid, or several by probability, with lines that are fixed or move.

    Args:
        size: Height and width of the mosaic, in pixels.
        cells: Rows and columns, or a list of such pairs.
        probs: Probability of each pair of the list. Defaults to equal ones.
        jitter: How far grid lines move to either side, as a fraction of half a cell. 0: equal
            cells. 1: the published setting for 2x2 grids (``move_crs_pnt``). It must be below 1 for
            three or more cells in a row. ``'free'``: anywhere (``rand_crs``). Defaults to 0.
        min_cell: The smallest side of a cell where lines move, in pixels. Defaults to 32.

    Raises:
        ValueError: A grid of one cell or of cells that are too small, or wrong probabilities.
    """

    def __init__(
        self,
        size: Sequence[int],
        cells: Sequence = (2, 2),
        probs: Sequence[float] | None = None,
        jitter: float | str = 0.0,
        min_cell: int = 32,
    ) -> None:
        height, width = map(int, size)
        self.size = height, width
        self.grids = [tuple(pair) for pair in (cells if np.ndim(cells) == 2 else [cells])]
        self.probs = np.full(len(self.grids), 1 / len(self.grids))
        self.jitter, self.min_cell = jitter, min_cell
        if probs is not None:
            self.probs = np.asarray(probs, float)
            fits = self.probs.shape == (len(self.grids),) and (self.probs >= 0).all()
            if not (fits and np.isclose(self.probs.sum(), 1)):
                raise ValueError(f'grid: probs={probs} must be shares of {cells} with the sum 1')
        for rows, columns in self.drawn:
            if rows * columns < 2 or not self._smallest_cell(rows, columns) >= 1:
                raise ValueError(
                    f'grid: {rows}x{columns} cells with jitter={jitter!r} and min_cell={min_cell} '
                    f'do not divide a mosaic of {height}x{width} pixels'
                )

    def _smallest_cell(self, rows: int, columns: int) -> float:
        """Smallest side that a cell may get, in units of the smallest that is allowed."""
        if self.jitter == 0:
            return min(self.size[0] / rows, self.size[1] / columns)
        jitter = 0.0 if self.jitter == 'free' else float(self.jitter)
        # A cell in the middle has a moving line on either side, one at the border has one.
        sides = [
            pixels / number * (1 - jitter * min(number - 1, 2) / 2)
            for pixels, number in zip(self.size, (rows, columns))
        ]
        return min(sides) / self.min_cell if 0 <= jitter <= 1 else 0.0

    @property
    def drawn(self) -> list[tuple[int, int]]:
        """The grids without those of probability 0."""
        return [grid for grid, prob in zip(self.grids, self.probs) if prob > 0]

    @property
    def most_cells(self) -> int:
        """Cells of the largest grid."""
        return max(rows * columns for rows, columns in self.drawn)

    @property
    def fewest_cells(self) -> int:
        """Cells of the smallest grid."""
        return min(rows * columns for rows, columns in self.drawn)

    @property
    def cell_sizes(self) -> set[tuple[int, int]]:
        """Heights and widths of all cells; empty where lines move."""
        if self.jitter != 0:
            return set()
        edges = (self.edges(grid, np.random.default_rng(0)) for grid in self.drawn)
        return {
            (rows.stop - rows.start, columns.stop - columns.start)
            for of_grid in edges
            for rows, columns in windows(of_grid)
        }

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw rows and columns of a mosaic; nothing is drawn where there is one grid."""
        if len(self.grids) == 1:
            return self.grids[0]
        return self.grids[int(rng.choice(len(self.grids), p=self.probs))]

    def edges(self, grid: tuple[int, int], rng: np.random.Generator) -> Edges:
        """Draw where rows and columns begin, and the last ones end.

        Args:
            grid: Rows and columns.
            rng: The sample's generator; nothing is drawn for fixed lines.

        Returns:
            (rows + 1) and (columns + 1) pixels, from 0 to height and width. Where equal cells do
            not divide the size, they differ by a pixel.
        """
        rows, columns = (self._lines(p, n, rng) for p, n in zip(self.size, grid))
        return rows, columns

    def _lines(self, pixels: int, cells: int, rng: np.random.Generator) -> tuple[int, ...]:
        if self.jitter == 0:
            return tuple(np.linspace(0, pixels, cells + 1).round().astype(int).tolist())
        numbers = np.arange(1, cells)
        if self.jitter == 'free':
            # What is left of the pixels beside the smallest cells is cut at random.
            cuts = np.sort(rng.random(cells - 1)) * (pixels - cells * self.min_cell)
            inner = cuts + numbers * self.min_cell
        else:
            moves = self.jitter * (rng.random(cells - 1) - 0.5)
            inner = (numbers + moves) * pixels / cells
        return (0, *np.floor(inner + 0.5).astype(int).tolist(), pixels)


def windows(edges: Edges) -> list[Window]:
    """Return the cells between edges as slices of the canvas, row by row."""
    rows, columns = edges
    return [
        (slice(top, bottom), slice(left, right))
        for top, bottom in zip(rows, rows[1:])
        for left, right in zip(columns, columns[1:])
    ]
