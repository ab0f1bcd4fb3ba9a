"""TRIS's stages return what the published networks returned for the same weights.

The cases of ../shared/parity/tris_stage{1,2}; `tests/parity/check_parity.py --small` makes the
files.
"""

import pytest
import torch

SLOW = pytest.mark.slow
FLOAT, DOUBLE = (torch.float32,), (torch.float64,)


@pytest.mark.parametrize('dtypes', [FLOAT, pytest.param(DOUBLE, marks=SLOW)])
def test_an_expression_alone(parity, cases, all_hold, dtypes):
    check = parity.tris_stage1.check_alone
    all_hold(check(cases / 'tris_stage1', dtypes), 'score_B_HW_1', 'pixels of a mask')


@pytest.mark.slow
@pytest.mark.parametrize('dtypes', [FLOAT, DOUBLE])
def test_expressions_together(parity, cases, all_hold, dtypes):
    check = parity.tris_stage1.check_together
    made = all_hold(check(cases / 'tris_stage1', dtypes), 'score_B_HW_N', 'logits', 'post/map1')
    assert sum(one.middle for one in made) == 19


@pytest.mark.slow
@pytest.mark.parametrize('dtypes', [FLOAT, DOUBLE])
def test_a_training_step_of_stage_1(parity, cases, all_hold, dtypes):
    check = parity.tris_stage1.check_training
    losses = [f'loss/l{name}' for name in ('1_cal', '4_class', '5_cal')]
    gradients = ['grad/vis_project.weight', 'grad/backbone.visual.conv1.weight']
    all_hold(check(cases / 'tris_stage1', dtypes), *losses, *gradients, 'formula/neg_loss')


@pytest.mark.parametrize('dtypes', [FLOAT, pytest.param(DOUBLE, marks=SLOW)])
def test_the_network_of_stage_2(parity, cases, all_hold, dtypes):
    check = parity.tris_stage2.check_network
    made = all_hold(check(cases / 'tris_stage2', dtypes), 'logits (summary)', 'pixels of a mask')
    assert sum(one.middle for one in made) == 25


@pytest.mark.slow
@pytest.mark.parametrize('dtypes', [FLOAT, DOUBLE])
def test_a_training_step_of_stage_2(parity, cases, all_hold, dtypes):
    check = parity.tris_stage2.check_training
    all_hold(check(cases / 'tris_stage2', dtypes), 'loss/l1_l2_l3_l4', 'attention4.ins_w.weight')
