"""Which differences between an export and its network are refused."""

import pytest

from nemo_mmseg.deployment.check import Differences

GOOD = dict(tokens=0, picture=1.0, logits=0.01, largest_logit=20.0, no_target=1e-4, masks=0.5)


def test_small_differences_pass():
    Differences(**GOOD).check(1e-3)


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(tokens=1), 'tokenizer'),
        (dict(picture=1.5), 'a picture that differs by 1.5 of 255'),
        (dict(picture=float('nan')), 'a picture'),
        (dict(logits=0.03), 'logits'),
        (dict(logits=float('nan')), 'logits'),
        (dict(no_target=2e-3), 'no-target score'),
        (dict(no_target=float('inf')), 'no-target score'),
    ],
)
def test_others_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Differences(**(GOOD | change)).check(1e-3)
