"""The table of scores: measures by hand, and what is refused."""

import json
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


def written(folder, place, value):
    """Results of which one field holds something else; ``place`` is in the file or in a record."""
    record = dict(
        sent_id=4, image='a.jpg', expression='red', num_distractors=1, intersection=3, union=5,
        target_area=0.5, no_target=False, predicted_no_target=False,
    )  # fmt: skip
    content = dict(empty_union=1.0, tie='>=', no_target_rule=None, predictions=[record])
    (content if place in content else record)[place] = value
    (folder / 'predictions.json').write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    'place, values',
    {
        'predictions': ({}, None, 'abc', [5], [[]]),
        'empty_union': (None, '1', 2, -0.1, True, float('nan'), [1]),
        'tie': (None, '<', '', 5, ['>=']),
        'no_target_rule': (5, 'area', []),
        'sent_id': ('4', 1.5, True, [4], 2**63),
        'image': (5, ['a.jpg'], {}),
        'expression': (5, [], {}),
        'num_distractors': ('1', 0.5, 2**63, -(2**70), [1]),
        'intersection': (None, '3', 3.0, -1, 6, True, [3], 2**63),
        'union': (None, '5', 5.5, 2, False, [5], 2**63 - 1, 2**70),
        'target_area': (None, '1', 1.5, -1, float('inf'), float('nan'), True, [0.5]),
        'no_target': (1, 'yes', 0.0, [True]),
        'predicted_no_target': (0, 'no', {}),
    }.items(),
)
def test_a_field_that_holds_something_else_is_named(tmp_path, place, values):
    for value in values:
        file = written(tmp_path, place, value) / 'predictions.json'
        with pytest.raises(ValueError, match=f'{file}.*; allowed: ') as caught:
            ExpressionScores.read(tmp_path)
        words = [place, 'sent_id', 'prediction 4', 'position 0', 'union']
        assert any(word in str(caught.value) for word in words) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    'content',
    [b'', b'{', b'[' * 10**5 + b']' * 10**5, b'\xff\xfe', b'{"predictions": \x80}', b'[1]', b'5'],
)
def test_what_is_no_json_of_results_is_named(tmp_path, content):
    (tmp_path / 'predictions.json').write_bytes(content)
    with pytest.raises(ValueError, match=rf'{tmp_path}/predictions\.json') as caught:
        ExpressionScores.read(tmp_path)
    assert not isinstance(caught.value, UnicodeError)


def test_sound_results_are_read(tmp_path):
    scores = ExpressionScores.read(written(tmp_path, 'num_distractors', None))
    assert scores.num_distractors.tolist() == [-1] and scores.iou.tolist() == [0.6]
