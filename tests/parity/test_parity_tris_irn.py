"""Confidence labels, affinity network and masks are those of TRIS's published code.

The cases of ../shared/parity/tris_irn; `tests/parity/check_parity.py --small` makes the files, and
also compares the training.
"""

import pytest


@pytest.mark.parametrize(
    'name, must',
    [
        ('crf', ('case4/confidence_label', 'case0/not_background_prob1')),
        ('masks', ('case0/random_walk', 'case2/pixels of masks', 'case4/scores are no numbers')),
        ('losses', ('r10/grad/edge', 'f64/r5/loss/total', 'r10/affinity')),
    ],
)
def test_given_maps(parity, cases, all_hold, name, must):
    all_hold(parity.tris_irn.CHECKS[name](cases / 'tris_irn'), *must)


@pytest.mark.slow
def test_edges_and_displacements_of_an_image(parity, cases, all_hold):
    made = all_hold(parity.tris_irn.check_network(cases / 'tris_irn'), 'edge', 'f64/displacement')
    assert sum(one.middle for one in made) == 36
