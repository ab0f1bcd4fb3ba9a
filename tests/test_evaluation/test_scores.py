"""The table of scores: measures by hand, and what is refused."""

import math

import numpy as np
import pytest

from nemo_mmseg.evaluation.predictions import write_json
from nemo_mmseg.evaluation.scores import ExpressionScores


def test_ties_at_each_threshold(table):
    # 5/10 ... 9/10 are exactly the thresholds
    columns = dict(intersection=np.arange(5, 10), union=np.full(5, 10))
    keys = [f'Pr@0.{digit}' for digit in range(5, 10)]
    for tie, expected in (('>=', [100, 80, 60, 40, 20]), ('>', [80, 60, 40, 20, 0])):
        summary = table(5, **columns, tie=tie).summary()
        assert [summary[key] for key in keys] == pytest.approx(expected)


def test_empty_unions_count_as_told(table):
    columns = dict(intersection=[0], union=[0])
    assert set(table(1, **columns).summary().values()) == {100.0}
    assert set(table(1, **columns, empty_union=0.0).summary().values()) == {0.0}


def test_no_expression_is_not_a_number(table):
    assert all(math.isnan(value) for value in table(0).summary().values())


def test_slices_are_measured_alone(table):
    scores = table(3, intersection=[1, 2, 3], union=[4, 4, 4])
    summary = scores.summary([0.5], where=np.array([True, False, True]))
    assert summary == pytest.approx({'oIoU': 50, 'mIoU': 50, 'Pr@0.5': 50})
    assert scores.take(np.array([2, 0])).summary([0.5]) == pytest.approx(summary)


def test_joined_tables_count_together(table):
    parts = table(2, images=['a', 'b']), table(1, images=['a'], sent_ids=[7])
    joined = ExpressionScores.join(parts)
    assert joined.sent_ids.tolist() == [0, 1, 7] and joined.num_images == 2
    assert joined.image_index.tolist() == [0, 1, 0]


def test_columns_of_different_length_name_the_image(table):
    with pytest.raises(ValueError, match=r"2\.jpg.*'intersection': 4.*'no_target': 2"):
        table(4, images=['2.jpg'] * 4, no_target=[True, False])


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(FileNotFoundError, match='no results of tools/test.py --out'):
        ExpressionScores.read(tmp_path)
    content = dict(dataset=None, empty_union=1.0, tie='>=', no_target_rule=None)
    record = dict(sent_id=4, intersection=None, union=None, target_area=None)
    write_json(tmp_path / 'val' / 'predictions.json', dict(content, predictions=[record]))
    with pytest.raises(FileNotFoundError, match=r"did you mean one of \['.*val'\]"):
        ExpressionScores.read(tmp_path)
    with pytest.raises(ValueError, match='4: intersection is None; .* with ground truth'):
        ExpressionScores.read(tmp_path / 'val')
    write_json(tmp_path / 'metrics.json', dict(oIoU=50.0))
    with pytest.raises(
        ValueError,
        match='metrics.json: predictions is missing; .*test.py',
    ):
        ExpressionScores.read(tmp_path / 'metrics.json')
