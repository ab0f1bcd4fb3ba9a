"""CGFormer returns what the published network returned for the same weights.

A part of the case of ../shared/parity/cgformer (`tests/parity/check_parity.py --small` makes the
file): the network has one size only, of which the tests compute one image and a corner of its mask.
"""

import pytest


@pytest.mark.slow
def test_one_image_and_a_corner_of_its_mask(parity, cases, all_hold):
    made = all_hold(
        parity.cgformer.check_corner(cases / 'cgformer'),
        *(f'pixels of round {k} at the other token' for k in range(3)),
        'corner of the map of the mask',
    )
    # all that the published code kept but the result of a gate that nothing uses, and two maps
    assert sum(one.middle for one in made) == 46
