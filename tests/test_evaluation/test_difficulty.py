"""Slices against hand-made cases and loops; they add up to the whole."""

import numpy as np
import pytest

from nemo_mmseg.evaluation.difficulty import DIFFICULTIES, slice_by
from nemo_mmseg.evaluation.scores import ExpressionScores


@pytest.fixture(scope='module')
def scores(table) -> ExpressionScores:
    """Random values; some expressions lack words, a number of distractors or a target."""
    rng, num = np.random.default_rng(0), 400
    words = ['left', 'top', 'red', 'man', 'bright', 'laptop', 'bottom', 'large']
    union = rng.integers(0, 900, num) * (rng.random(num) > 0.05)
    return table(
        num,
        intersection=rng.integers(0, union + 1),
        union=union,
        target_area=rng.choice([0, 0.001, 0.01, 0.03, 0.04, 0.1, 0.16, 0.5, 1.0], num),
        num_distractors=rng.integers(-1, 7, num),
        expressions=[' '.join(rng.choice(words, rng.integers(0, 25))) for _ in range(num)],
    )


def labels_of(scores: ExpressionScores, by: str) -> list[str]:
    slices = slice_by(scores, by)
    return [next(label for label in slices if slices[label][row]) for row in range(len(scores))]


def test_distractors_by_hand(table):
    scores = table(7, num_distractors=[0, 1, 2, 3, 4, 40, -1])
    assert labels_of(scores, 'distractors') == ['0', '1', '2', '3+', '3+', '3+', 'unknown']


def test_length_by_hand(table):
    counts = [0, 1, 5, 6, 7, 8, 10, 11, 20, 21, 60]
    expressions = ['  '.join(['word'] * count) + ' ' for count in counts] + [
        "the man's red-ish hat"
    ]
    expected = 'unknown 1-5 1-5 6-7 6-7 8-10 8-10 11-20 11-20 21+ 21+ 1-5'.split()
    assert labels_of(table(12, expressions=expressions), 'length') == expected


def test_area_by_hand(table):
    shares = [0, 1e-9, 0.0099, 0.01, 0.02, 0.0399, 0.04, 0.1599, 0.16, 0.3, 0.32, 1.0]
    expected = ['no target', '0-1%', '0-1%', '1-2%', '2-4%', '2-4%', '4-8%', '8-16%', '16-32%']
    expected += ['16-32%', '32-100%', '32-100%']
    assert labels_of(table(12, target_area=shares), 'area') == expected


def test_position_by_hand(table):
    expressions = ['left man', 'bright laptop', 'top right', 'yellow', '']
    expected = ['with', 'without', 'with', 'without', 'without']
    assert labels_of(table(5, expressions=expressions), 'position') == expected


def test_size_words_by_hand(table):
    expressions = ['Larger dog', 'the smallest', 'tiny red car', 'big', 'taller boy']
    expressions += ['enlarged', 'bigfoot', 'short sleeves', '']
    expected = ['with'] * 5 + ['without'] * 4
    assert labels_of(table(9, expressions=expressions), 'size_word') == expected


def test_crossed_slices_are_pairs(scores):
    firsts, seconds = labels_of(scores, 'position'), labels_of(scores, 'length')
    expected = [f'{first},{second}' for first, second in zip(firsts, seconds)]
    assert labels_of(scores, 'position*length') == expected
    assert len(set(expected)) > 8


@pytest.mark.parametrize('by', [*DIFFICULTIES, 'position*length', 'distractors*area*position'])
def test_slices_add_up_to_the_whole(scores, by: str):
    filled = slice_by(scores, by).values()
    assert np.array_equal(sum(where.astype(int) for where in filled), np.ones(len(scores)))
    assert len(filled) >= 2
    parts = [(scores.summary(where=where), where) for where in filled]
    whole = scores.summary()
    for key in ('mIoU', 'Pr@0.5', 'Pr@0.9'):
        mean = sum(part[key] * where.sum() for part, where in parts) / len(scores)
        assert mean == pytest.approx(whole[key])
    unions = [scores.union[where].sum() for _, where in parts]
    overall = np.dot([part['oIoU'] for part, _ in parts], unions) / np.sum(unions)
    assert overall == pytest.approx(whole['oIoU'])


def test_no_expressions_no_slices(table):
    assert slice_by(table(0), 'position*length') == {}


@pytest.mark.parametrize('by, word', [('size', "'size'"), ('length*', "''")])
def test_unknown_difficulties(table, by: str, word: str):
    with pytest.raises(ValueError, match=word):
        slice_by(table(3), by)
