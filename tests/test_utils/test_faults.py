"""Messages about values of files: short, whatever the value, and made at once."""

import math

import pytest

from nemo_mmseg.utils.faults import MISSING, fault, shown


def doubled(depth):
    value = ()
    for _ in range(depth):
        value = (value, value)
    return value


def endless():
    value = []
    value.append(value)
    return value


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


VALUES = {
    '7': 7,
    '-1.5': -1.5,
    'nan': math.nan,
    'None': None,
    'True': True,
    "the text '7'": '7',
    "the text '\\ud800'": '\ud800',
    'missing': MISSING,
    '[]': [],
    "['a', 1, None]": ['a', 1, None],
    '[0, 1, 2, 3, ... 9 in all]': list(range(9)),
    "{'a': [1, 2]}": {'a': [1, 2]},
    'a number of 33220 bits': 10**10_000,
    '[[a tuple of 2, a tuple of 2], [a tuple of 2, a tuple of 2]]': doubled(200),
    '[[a list of 1]]': [endless()],
    '[{[]: a list of 1}]': [{(): [1]}],
}


@pytest.mark.parametrize('text', VALUES)
def test_values_are_shown(text):
    assert shown(VALUES[text]) == text


@pytest.mark.parametrize(
    'value', [deep(), 'x' * 10**6, ['x' * 10**6] * 9, {'k' * 200: 1}, b'x' * 10**6, {doubled(9): 1}]
)
def test_long_values_are_cut(value):
    assert len(shown(value)) < 110


def test_an_error_says_where_what_and_what_is_allowed():
    error = fault('refs.p: reference 7', 'ann_id', '9', 'a whole number')
    assert str(error) == "refs.p: reference 7: ann_id is the text '9'; allowed: a whole number"
