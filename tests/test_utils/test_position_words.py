"""The cells in which an expression's position words stay true."""

from pathlib import Path

import pytest

from nemo_mmseg.datasets.transforms.geometry import swap_sides
from nemo_mmseg.utils.position_words import position_cells

LABELLED = Path(__file__).parents[1] / 'data' / 'position_words.txt'
# Rows and columns of grids, by hand: which lines of `size` are first, in the middle, and last.
LINES = {
    1: dict(first={0}, middle={0}, last={0}),
    2: dict(first={0}, middle={0, 1}, last={1}),
    3: dict(first={0}, middle={1}, last={2}),
    4: dict(first={0}, middle={1, 2}, last={3}),
}
LABELS = {'top': 'first', 'left': 'first', 'middle': 'middle', 'bottom': 'last', 'right': 'last'}


def labelled():
    for line in LABELLED.read_text().splitlines():
        if not line.startswith('#'):
            yield tuple(field.strip() for field in line.split('|'))


@pytest.mark.parametrize('grid', [(2, 2), (3, 3), (1, 2), (2, 4)])
def test_labelled_expressions(grid):
    wrong = []
    for expression, row, column in labelled():
        rows, columns = (
            LINES[size][LABELS[label]] if label != '-' else set(range(size))
            for label, size in zip((row, column), grid)
        )
        expected = {r * grid[1] + c for r in rows for c in columns}
        if position_cells(expression, *grid) != expected:
            wrong.append((expression, row, column, position_cells(expression, *grid)))
    assert not wrong


def test_the_list_is_long_varied_and_without_repetitions():
    rows = list(labelled())
    assert len({text for text, *_ in rows}) == len(rows) > 400
    assert {row for _, row, _ in rows} == {'top', 'middle', 'bottom', '-'}
    assert {column for *_, column in rows} == {'left', 'middle', 'right', '-'}


# Cells of the published 2x2 grid: 0 1 / 2 3.
@pytest.mark.parametrize(
    ('expression', 'cells'),
    {
        'left': {0, 2},
        'the woman on the right': {1, 3},
        'top left star': {0},
        'Lower LEFT corner': {2},
        'middle': {0, 1, 2, 3},
        'top middle': {0, 1},
        'the bright yellow laptop': {0, 1, 2, 3},
        'man left of the dog': {0, 1, 2, 3},
        'left man with the right one': {0, 1, 2, 3},
        '': {0, 1, 2, 3},
        ' , ': {0, 1, 2, 3},
        '左': {0, 1, 2, 3},
    }.items(),
)
def test_two_by_two(expression, cells):
    assert position_cells(expression, 2, 2) == cells


def test_some_cell_always_remains_and_none_is_outside():
    for expression, *_ in labelled():
        for rows in range(1, 5):
            for columns in range(1, 5):
                cells = position_cells(expression, rows, columns)
                assert cells and cells <= set(range(rows * columns))


def test_left_and_right_have_the_same_rules():
    checked = 0
    for expression, _, column in labelled():
        mirrored = swap_sides(expression)
        # "left in back" is a place, "right in back" may be none.
        if column in ('left', 'right') and mirrored not in (None, 'right in back'):
            checked += 1
            assert position_cells(mirrored, 1, 3) == ({2} if column == 'left' else {0}), mirrored
    assert checked > 150
