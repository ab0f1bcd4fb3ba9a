"""The cells in which an expression's position words stay true."""

import pytest

from nemo_mmseg.datasets.transforms.position_words import allowed_cells

# Cells of a 2x2 grid: 0 1 / 2 3.
CASES = {
    'left': [0, 2],
    'the woman on the right': [1, 3],
    'top left star': [0],
    'bottom right': [3],
    'Lower LEFT corner': [2],
    'leftmost cup': [0, 2],
    'the bright yellow laptop': [0, 1, 2, 3],  # parts of words bind nothing
    'upright man with a topping, belowdecks': [0, 1, 2, 3],
    'man left of the right dog': [0, 1, 2, 3],  # a contradiction
    'top of the bottom left one': [0, 2],  # contradiction in rows only
    'under the table': [2, 3],
    'low wall': [2, 3],
    'red star': [0, 1, 2, 3],
    '': [0, 1, 2, 3],
    'right-hand side': [1, 3],
}


@pytest.mark.parametrize(('expression', 'cells'), CASES.items())
def test_two_by_two(expression, cells):
    assert allowed_cells(expression, 2, 2) == cells


def test_three_by_three_and_uneven_grids():
    assert allowed_cells('top right', 3, 3) == [2]
    assert allowed_cells('left', 3, 3) == [0, 3, 6]
    assert allowed_cells('bottom', 2, 3) == [3, 4, 5]
    assert allowed_cells('right', 1, 2) == [1]
