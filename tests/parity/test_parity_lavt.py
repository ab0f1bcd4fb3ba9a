"""LAVT returns what the published network returned for the same weights.

The cases of ../shared/parity/lavt_swin_t; `tests/parity/check_parity.py --small` makes the files.
"""

import pytest


def test_backbone_and_head(parity, cases, all_hold):
    made = all_hold(
        parity.lavt.check_features(cases / 'lavt_swin_t'),
        'feat_logits_low (summary)',
        'feat_logits_low, ours in float64 (summary)',
        'feat_loss',
        'feat_loss_per_sample',
        'feat64_loss',
        'pixels of all masks',
        'feat_inter',
        'feat_union',
    )
    # all that the published code kept but the two results of the gate that nothing uses
    assert sum(one.middle for one in made) == 58


@pytest.mark.slow
@pytest.mark.parametrize('method', ['lavt', 'lavt_one'])
def test_from_token_ids_to_masks(parity, cases, all_hold, method):
    made = all_hold(
        parity.lavt.check_end_to_end(cases / 'lavt_swin_t', method),
        'bert_last_hidden (summary)',
        'e2e_logits_low (summary)',
        'e2e64_logits_low (summary)',
        'e2e_loss_per_sample',
        'e2e64_loss',
        'pixels of all masks',
    )
    assert sum(one.middle for one in made) == 62
