"""Choice and metrics of response maps are those of TRIS's published code.

The cases of ../shared/parity/tris_prms and tris_metrics; `tests/parity/check_parity.py --small`
makes the files.
"""

import pytest
import torch


@pytest.mark.parametrize('name', ['refcoco', 'referit'])
def test_metrics(parity, cases, all_hold, name):
    check = parity.tris_metrics.CHECKS[name]
    all_hold(
        check(cases / 'tris_metrics'), 'box_iou', 'point', 'boxes', 'total PointM', 'total Acc_box'
    )


@pytest.mark.slow
def test_the_chosen_map(parity, cases, all_hold):
    made = all_hold(
        parity.tris_prms.check_prms(cases / 'tris_prms', dtypes=(torch.float32,)),
        'meter oIoU',
        'obj4 chosen',
    )
    assert len(made) == 5 * 6 - 1 + 3
