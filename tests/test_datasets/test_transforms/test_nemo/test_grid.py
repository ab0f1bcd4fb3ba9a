"""Grids and their lines: what is drawn, and that cells cover the canvas once."""

import collections

import numpy as np
import pytest

from nemo_mmseg.datasets.transforms.nemo.grid import MosaicGrid, windows


@pytest.mark.parametrize('size', [(480, 480), (416, 300), (97, 131)])
@pytest.mark.parametrize('grid', [(2, 2), (3, 3), (1, 4), (5, 1), (2, 3)])
@pytest.mark.parametrize('jitter', [0, 0.4, 'free'])
def test_every_pixel_belongs_to_one_cell(size, grid, jitter):
    layout = MosaicGrid(size, grid, jitter=jitter, min_cell=5)
    rng = np.random.default_rng(0)
    for _ in range(30):
        edges = layout.edges(layout.draw(rng), rng)
        covered = np.zeros(size, int)
        cells = windows(edges)
        for number, window in enumerate(cells):
            covered[window] += 1
            # Row by row.
            row, column = divmod(number, grid[1])
            assert (window[0].start, window[1].start) == (edges[0][row], edges[1][column])
            if jitter != 0:
                assert min(s.stop - s.start for s in window) >= 5 - 1
        assert len(cells) == grid[0] * grid[1]
        assert (covered == 1).all()


def test_fixed_lines_divide_equally_and_draw_nothing():
    layout = MosaicGrid((416, 300), (3, 2))
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert layout.edges(layout.draw(rng), rng) == ((0, 139, 277, 416), (0, 150, 300))
    assert rng.bit_generator.state == before


def lines(jitter, cells=(2, 2), size=(1000, 1000), number=4000, **kwargs):
    layout = MosaicGrid(size, cells, jitter=jitter, **kwargs)
    rng = np.random.default_rng(1)
    return np.array([layout.edges(cells, rng)[0][1:-1] for _ in range(number)])


def assert_uniform(values, low, high):
    """Five bins of equal width hold equal shares."""
    counts, _ = np.histogram(values, bins=5, range=(low, high))
    assert counts.sum() == len(values) and abs(counts / len(values) - 0.2).max() < 0.03


def test_jittered_lines_keep_to_their_range():
    # The published range of a 2x2 grid: the middle half.
    assert_uniform(lines(1.0)[:, 0], 250, 750.5)
    assert_uniform(lines(0.2)[:, 0], 450, 550.5)
    three = lines(0.3, (3, 3))
    assert_uniform(three[:, 0], 1000 / 3 - 50.5, 1000 / 3 + 50.5)
    assert_uniform(three[:, 1], 2000 / 3 - 50.5, 2000 / 3 + 50.5)
    # Rows and columns move on their own.
    layout, rng = MosaicGrid((1000, 1000), jitter=1.0), np.random.default_rng(0)
    both = np.array([[e[1] for e in layout.edges((2, 2), rng)] for _ in range(2000)])
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.08


def test_free_lines_are_uniform_over_all_allowed_places():
    assert_uniform(lines('free')[:, 0], 32, 968)
    # Of two lines in a 3x3 grid all allowed pairs are equally likely: against drawing pairs and
    # throwing away those that are not allowed.
    rng = np.random.default_rng(2)
    pairs = np.sort(rng.uniform(0, 1000, (60000, 2)), axis=1)
    sides = np.diff(np.pad(pairs, ((0, 0), (1, 0))), axis=1).min(axis=1)
    sides = np.minimum(sides, 1000 - pairs[:, 1])
    expected = pairs[sides >= 200]
    drawn = lines('free', (3, 3), min_cell=200)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        np.testing.assert_allclose(
            np.quantile(drawn, quantile, axis=0), np.quantile(expected, quantile, axis=0), atol=12
        )


def test_grids_come_with_their_probabilities():
    for probs, expected in ((None, (0.5, 0.5)), ((0.8, 0.2), (0.8, 0.2)), ((1, 0), (1, 0))):
        layout = MosaicGrid((64, 64), [(2, 2), (3, 3)], probs)
        rng = np.random.default_rng(0)
        counts = collections.Counter(layout.draw(rng) for _ in range(4000))
        assert abs(counts[2, 2] / 4000 - expected[0]) < 0.025
        assert abs(counts[3, 3] / 4000 - expected[1]) < 0.025
        assert layout.most_cells == (9 if expected[1] else 4)  # of those that are drawn
    # Nothing is asked of a grid that is never drawn.
    layout = MosaicGrid((64, 64), [(2, 2), (8, 8)], (1, 0), jitter=1.0, min_cell=10)
    assert layout.grids == [(2, 2), (8, 8)] and layout.fewest_cells == layout.most_cells == 4
    never = MosaicGrid((64, 64), [(2, 2), (1, 4)], (1, 0))
    assert never.cell_sizes == {(32, 32)}
    # A list, as a config file that was dumped and read again has it.
    assert MosaicGrid((64, 64), [[2, 2], [3, 3]]).grids == [(2, 2), (3, 3)]
    assert MosaicGrid((64, 64), [3, 2]).grids == [(3, 2)]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(cells=(1, 1)), '1x1 cells'),
        (dict(cells=[(2, 2), (1, 1)]), '1x1 cells'),
        (dict(cells=(1, 200)), '1x200 cells'),
        (dict(cells=[(2, 2), (3, 3)], probs=(0.5,)), 'sum 1'),
        (dict(cells=(2, 2), probs=(0.5, 0.5)), 'sum 1'),
        (dict(cells=[(2, 2), (3, 3)], probs=(0.5, 0.6)), 'sum 1'),
        (dict(cells=[(2, 2), (3, 3)], probs=(1.5, -0.5)), 'sum 1'),
        (dict(cells=[(2, 2), (3, 3)], probs=(float('nan'), 1)), 'sum 1'),
        (dict(jitter=1.5, min_cell=1), 'jitter=1.5'),
        (dict(jitter=-0.1, min_cell=1), 'jitter=-0.1'),
        (dict(jitter='loose'), 'loose'),
        (dict(jitter='free', cells=(4, 4)), "4x4 cells with jitter='free' and min_cell=32"),
        (dict(jitter=1.0), '2x2 cells with jitter=1.0 and min_cell=32'),
        # Both lines of a middle cell could meet.
        (dict(jitter=1.0, cells=(3, 1), min_cell=1), '3x1 cells with jitter=1.0'),
        (dict(jitter=0.98, cells=(3, 1), min_cell=1), '3x1 cells'),
        (dict(size=(100,)), 'unpack'),
    ],
)
def test_grids_without_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MosaicGrid(**{'size': (100, 100), **options})
