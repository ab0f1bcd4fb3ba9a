"""TRIS's stages return what the published networks returned for the same weights.

The cases of ../shared/parity/tris_stage{1,2}; `tests/parity/check_parity.py --small` makes the
files.
"""

import pytest
import torch

SLOW = pytest.mark.slow
DTYPES = pytest.mark.parametrize('dtype', [torch.float32, pytest.param(torch.float64, marks=SLOW)])


@DTYPES
def test_an_expression_alone(parity, cases, all_hold, dtype):
    check = parity.tris_stage1.check_alone
    all_hold(check(cases / 'tris_stage1', (dtype,)), 'score_B_HW_1', 'pixels of a mask')


@SLOW
def test_expressions_together(parity, cases, all_hold):
    check = parity.tris_stage1.check_together
    found = check(cases / 'tris_stage1', (torch.float64,))
    made = all_hold(found, 'score_B_HW_N', 'logits', 'post/map1')
    assert sum(one.middle for one in made) == 19


@SLOW
def test_a_training_step_of_stage_1(parity, cases, all_hold):
    check = parity.tris_stage1.check_training
    losses = [f'loss/l{name}' for name in ('1_cal', '4_class', '5_cal')]
    gradients = ['grad/vis_project.weight', 'grad/backbone.visual.conv1.weight']
    found = check(cases / 'tris_stage1', (torch.float64,))
    all_hold(found, *losses, *gradients, 'formula/neg_loss', 'after the step')


@DTYPES
def test_the_network_of_stage_2(parity, cases, all_hold, dtype):
    check = parity.tris_stage2.check_network
    found = check(cases / 'tris_stage2', (dtype,))
    made = all_hold(found, 'logits (summary)', 'pixels of a mask')
    assert sum(one.middle for one in made) == 25


@SLOW
def test_a_training_step_of_stage_2(parity, cases, all_hold):
    check = parity.tris_stage2.check_training
    found = check(cases / 'tris_stage2', (torch.float64,))
    all_hold(found, 'loss/l1_l2_l3_l4', 'attention4.ins_w.weight')
