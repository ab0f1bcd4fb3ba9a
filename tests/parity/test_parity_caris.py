"""CARIS returns what the published network returned for the same weights.

The case ../shared/parity/caris_swin_t; `tests/parity/check_parity.py --small` makes the files.
"""

import pytest


@pytest.mark.slow
def test_all_but_bert(parity, cases, all_hold):
    made = all_hold(
        parity.caris.check_decoder(cases / 'caris_swin_t'),
        'feat_logits_low (summary)',
        'feat64_logits_low (summary)',
        'feat_loss_per_sample',
        'feat64_loss',
        'pixels of all masks',
        'feat_inter',
        'feat_union',
    )
    assert sum(one.middle for one in made) == 44


@pytest.mark.slow
def test_from_token_ids_to_masks(parity, cases, all_hold):
    made = all_hold(
        parity.caris.check_end_to_end(cases / 'caris_swin_t'),
        'prompts (summary)',
        'bert_last_hidden (summary)',
        'e2e_logits_low (summary)',
        'odd_logits_low',
        'e2e64_logits_low (summary)',
        'e2e64_loss_per_sample',
        'odd64_logits_low',
    )
    assert sum(one.middle for one in made) == 2 * 71


@pytest.mark.slow
def test_gradients_and_groups_of_a_training_step(parity, cases, all_hold):
    made = all_hold(
        parity.caris.check_training(cases / 'caris_swin_t'),
        'train_loss',
        'grad_total_norm',
        'group_tensors [53, 144, 76, 101, 78, 293]',
        'group_params [23874048, 85017600, 49434, 27471264, 25600, 30394304]',
        'group_grad_norm',
    )
    assert sum(one.middle for one in made) == 745
