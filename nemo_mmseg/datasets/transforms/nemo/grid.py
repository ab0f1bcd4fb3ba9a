"""Into which cells a mosaic is divided, and where the lines between them lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .schedule import is_number

Edges = tuple[tuple[int, ...], tuple[int, ...]]
Window = tuple[slice, slice]


class MosaicGrid:
    """A grid, or several by probability, with lines that are fixed or move.

    Args:
        size: Height and width of the mosaic, in pixels.
        grid: Rows and columns, or a list of such pairs.
        probs: Probability of each pair of the list. Defaults to equal ones.
        crossing: ``'fixed'``: equal cells. A number in (0, 1]: each line is moved by up to half a
            cell times this, to either side; 1 leaves the crossing point of a 2x2 grid in the middle
            half of the mosaic, and three or more cells side by side need less. ``'free'``:
            anywhere, with all places equally likely, as long as no cell is smaller than
            ``min_cell``.
        min_cell: The smallest height and width of a cell where lines move, in pixels.

    Raises:
        ValueError: A grid of one cell, or of cells that are too small; probabilities that do not
            belong to a list of grids or are none.
    """

    def __init__(
        self,
        size: Sequence[int],
        grid: Sequence = (2, 2),
        probs: Sequence[float] | None = None,
        crossing: str | float = 'fixed',
        min_cell: int = 32,
    ) -> None:
        if not _are_two(size):
            raise ValueError(f'size={size} must be (height, width) of a canvas')
        self.size = int(size[0]), int(size[1])
        single = not isinstance(grid, (list, tuple)) or all(np.isscalar(part) for part in grid)
        for pair in [grid] if single else grid:
            if not _are_two(pair) or min(pair) < 1 or max(pair) < 2:
                raise ValueError(f'grid={pair} must be (rows, columns) with two or more cells')
        self.grids = [(int(rows), int(columns)) for rows, columns in ([grid] if single else grid)]
        self.probs = self._checked(probs, single)
        if not (crossing in ('fixed', 'free') or _is_share(crossing)):
            raise ValueError(f"crossing={crossing!r} is not 'fixed', 'free' or a number in (0, 1]")
        self.crossing, self.min_cell = crossing, min_cell
        for rows_columns in self.drawn:
            for pixels, cells in zip(self.size, rows_columns):
                self._check_cells(pixels, cells)

    def _checked(self, probs: Sequence[float] | None, single: bool) -> np.ndarray:
        if probs is None:
            return np.full(len(self.grids), 1 / len(self.grids))
        given = np.asarray(probs, float)
        if single or given.shape != (len(self.grids),):
            raise ValueError(f'grid_probs={probs} needs a list of as many grids in grid')
        if not ((given >= 0).all() and abs(given.sum() - 1) <= 1e-6):
            raise ValueError(f'grid_probs={probs} must be probabilities with the sum 1')
        return given

    def _check_cells(self, pixels: int, cells: int) -> None:
        smallest = pixels / cells
        if self.crossing == 'fixed':
            if smallest < 1:
                raise ValueError(f'size={self.size} is too small for {cells} cells side by side')
            return
        if self.crossing == 1 and cells > 2:
            raise ValueError(
                f'crossing={self.crossing!r} must be below 1 for three or more cells side by side '
                f'(here {cells}): both lines of a middle cell could meet, whatever min_cell is'
            )
        if self.crossing != 'free' and cells > 1:
            # A cell in the middle has a line on either side.
            smallest *= 1 - self.crossing / (2 if cells == 2 else 1)
        if not is_number(self.min_cell) or self.min_cell < 1 or smallest < self.min_cell:
            raise ValueError(
                f'crossing={self.crossing!r} leaves no cells of min_cell={self.min_cell} pixels: '
                f'{cells} cells share {pixels} pixels'
            )

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of a transform with such a grid."""
        single = len(self.grids) == 1
        return dict(
            grid=self.grids[0] if single else self.grids,
            grid_probs=None if single else self.probs.tolist(),
            crossing=self.crossing,
            min_cell=self.min_cell,
        )

    @property
    def drawn(self) -> list[tuple[int, int]]:
        """The grids without those of probability 0."""
        return [grid for grid, prob in zip(self.grids, self.probs) if prob > 0]

    @property
    def most_cells(self) -> int:
        """Cells of the largest grid that is ever drawn."""
        return max(rows * columns for rows, columns in self.drawn)

    @property
    def fewest_cells(self) -> int:
        """Cells of the smallest grid that is ever drawn."""
        return min(rows * columns for rows, columns in self.drawn)

    @property
    def cell_sizes(self) -> set[tuple[int, int]] | None:
        """Heights and widths of all cells; None where lines move."""
        if self.crossing != 'fixed':
            return None
        edges = (self.edges(grid, np.random.default_rng(0)) for grid in self.drawn)
        return {
            (rows.stop - rows.start, columns.stop - columns.start)
            for of_grid in edges
            for rows, columns in windows(of_grid)
        }

    @property
    def largest_equal_cell(self) -> tuple[int, int]:
        """Height and width of a cell of the coarsest rows and columns, were no line to move."""
        fewest = [min(numbers) for numbers in zip(*self.drawn)]
        height, width = (-(-pixels // cells) for pixels, cells in zip(self.size, fewest))
        return height, width

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Rows and columns for a mosaic; nothing is drawn where there is one grid."""
        if len(self.grids) == 1:
            return self.grids[0]
        return self.grids[int(rng.choice(len(self.grids), p=self.probs))]

    def edges(self, grid: tuple[int, int], rng: np.random.Generator) -> Edges:
        """Where rows and columns begin, and the last ones end.

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
        if self.crossing == 'fixed':
            return tuple(np.linspace(0, pixels, cells + 1).round().astype(int).tolist())
        numbers = np.arange(1, cells)
        if self.crossing == 'free':
            # What is left of the pixels beside the smallest cells is cut at random.
            cuts = np.sort(rng.random(cells - 1)) * (pixels - cells * self.min_cell)
            inner = cuts + numbers * self.min_cell
        else:
            moves = self.crossing * (rng.random(cells - 1) - 0.5)
            inner = (numbers + moves) * pixels / cells
        return (0, *np.floor(inner + 0.5).astype(int).tolist(), pixels)


def windows(edges: Edges) -> list[Window]:
    """The cells between edges as slices of the canvas, row by row."""
    rows, columns = edges
    return [
        (slice(top, bottom), slice(left, right))
        for top, bottom in zip(rows, rows[1:])
        for left, right in zip(columns, columns[1:])
    ]


def _are_two(numbers: object) -> bool:
    return np.shape(numbers) == (2,) and all(is_number(n) and n == int(n) for n in numbers)


def _is_share(value: object) -> bool:
    return is_number(value) and 0 < value <= 1
