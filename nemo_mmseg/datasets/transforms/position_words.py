"""Which cells of a grid keep the position words of an expression true."""

from __future__ import annotations

import re

_LEFT = frozenset({'left', 'leftmost', 'lefthand'})
_RIGHT = frozenset({'right', 'rightmost', 'righthand'})
_TOP = frozenset({'top', 'topmost', 'upper', 'uppermost', 'above', 'high', 'highest'})
_BOTTOM = frozenset(
    {'bottom', 'bottommost', 'lower', 'lowermost', 'below', 'under', 'beneath', 'low', 'lowest'}
)


def _bound(words: set[str], first: frozenset[str], last: frozenset[str], size: int) -> range:
    at_first, at_last = bool(words & first), bool(words & last)
    if at_first == at_last:  # no such word, or a contradiction: any row or column
        return range(size)
    return range(1) if at_first else range(size - 1, size)


def allowed_cells(expression: str, rows: int, columns: int) -> list[int]:
    """Cells of a grid in which an expression with position words stays true.

    "left" binds to the left column, "top" to the top row, and so on; "top left" to the corner.
    Whole words count, not parts of words ("bright", "laptop", "yellow" bind nothing).

    Args:
        expression: The text.
        rows: Rows of the grid.
        columns: Columns of the grid.

    Returns:
        Numbers of the cells, row by row from the top left one, rising; all cells where nothing
        binds.
    """
    words = set(re.findall(r'[^\W\d_]+', expression.lower()))
    in_rows = _bound(words, _TOP, _BOTTOM, rows)
    in_columns = _bound(words, _LEFT, _RIGHT, columns)
    return [row * columns + column for row in in_rows for column in in_columns]
