"""ReLA returns what the published network returned for the same weights.

The case of ../shared/parity/rela_swin_t; `tests/parity/check_parity.py --small` makes the files.
"""

import pytest


def test_all_but_bert_and_a_training_step(parity, cases, all_hold):
    made = all_hold(
        parity.rela.check_features(cases / 'rela_swin_t'),
        'entries of attention masks, switched',
        'feat_pred_masks (summary)',
        'feat_minimap (summary)',
        'feat_nt_logits',
        'feat_pred_masks, ours in float64',
        'pixels of all masks',
        'feat_pred_nt',
        'feat_loss',
        'cells of target_minimap',
        'feat64 loss of minimap',
    )
    # all that the published code kept, and all gradients
    assert sum(one.middle for one in made) == 80 + 535


@pytest.mark.slow
def test_from_token_ids_to_masks(parity, cases, all_hold):
    made = all_hold(
        parity.rela.check_end_to_end(cases / 'rela_swin_t'),
        'bert_last_hidden (summary)',
        'e2e_pred_masks (summary)',
        'e2e64_pred_masks (summary)',
        'e2e64_minimap (summary)',
        'e2e64_nt_logits',
        'e2e64 of 75600 entries',
        'e2e_loss',
    )
    assert sum(one.middle for one in made) == 80
