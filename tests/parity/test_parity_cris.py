"""CRIS returns what the published network returned for the same weights.

The case of ../shared/parity/cris_r50; `tests/parity/check_parity.py --small` makes the files.
"""

import pytest
import torch


@pytest.mark.parametrize(
    'dtype', [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)]
)
def test_whole_network(parity, cases, all_hold, dtype):
    bits = '32' if dtype == torch.float32 else '64'
    made = all_hold(
        parity.cris.check_network(cases / 'cris_r50', dtypes=(dtype,)),
        'token ids',
        'padding',
        f'float{bits} logits (summary)',
        'loss',
        'pixels of a mask',
    )
    assert sum(one.middle for one in made) == 25
