"""The picture of a comparison shows its rows."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from nemo_mmseg.evaluation.compare import ComparisonRow, RunComparison
from nemo_mmseg.visualization.plot_comparison import plot_comparison

NAN = float('nan')
ROWS = [
    ComparisonRow('all', 'all', 300, 50, 'mIoU', 50, 52, 2, 1, 3),
    ComparisonRow('area', '0-1%', 180, 30, 'mIoU', 40, 41, 1, -2, 4),
    ComparisonRow('area', '1-2%', 119, 29, 'mIoU', 60, 64, 4, 3, 5),
    ComparisonRow('area', '2-4%', 1, 1, 'mIoU', 60, 69, 9, NAN, NAN),
    ComparisonRow('position*length', 'with,1-5', 300, 50, 'mIoU', 50, 52, 2, 1, 3),
]


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    found, save = [], Figure.savefig

    def record(figure, *args, **options):
        found.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, 'savefig', record)
    return found


def test_picture_shows_the_rows(figures, tmp_path: Path):
    comparison = RunComparison(ROWS, names=('base', 'NeMo'))
    plot_comparison(comparison, tmp_path / 'new' / 'out.svg', ['mIoU'])
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['out.svg']
    for axis, panel in zip(figures[0].axes, (ROWS[1:4], ROWS[4:]), strict=True):
        assert axis.get_title() == f'by {panel[0].by}'
        points = [line for line in axis.lines if line.get_marker() == 'o']
        assert points[0].get_ydata().tolist() == [row.difference for row in panel]
        levels = [line.get_ydata()[0] for line in axis.lines if line not in points]
        assert levels == [2, 0]
        segments = axis.collections[0].get_segments()
        drawn = [ends[:, 1].tolist() for ends in segments if ends.size]
        assert drawn == [[row.low, row.high] for row in panel if row.images > 1]
        low, high = axis.get_ylim()
        assert low < -2 and high > 9
        shown = [label.get_text() for label in axis.get_xticklabels()]
        expected = ['\n'.join([*row.slice.split(','), f'n={row.expressions}']) for row in panel]
        assert shown == expected
    texts = ' '.join(text.get_text() for text in figures[0].texts)
    assert 'NeMo minus base, with 95 % intervals' in texts and 'all 300 expressions' in texts


def test_a_comparison_without_slices_or_intervals_is_drawn(tmp_path: Path):
    whole = ComparisonRow('all', 'all', 4, 1, 'mIoU', 50, 52, 2, NAN, NAN)
    plot_comparison(RunComparison([whole]), tmp_path / 'out.png')
    assert (tmp_path / 'out.png').stat().st_size > 1000
