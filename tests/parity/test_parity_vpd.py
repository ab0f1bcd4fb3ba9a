"""VPD returns what the published network returned for the same weights.

The case of ../shared/parity/vpd_small, the published code at a tenth of its width;
`tests/parity/check_parity.py --small` makes the files.
"""

import torch


def test_whole_network(parity, cases, all_hold):
    made = all_hold(
        parity.vpd.check_network(cases / 'vpd_small'),
        'clip_last_hidden',
        'latents',
        'time_embed',
        'e2e_attn16',
        'e2e_attn32',
        'e2e_logits_low',
        'e2e64_logits_low',
        'e2e64_loss',
        'e2e pixels of all masks',
        'feat_logits_low',
    )
    # all that the published code kept but the maps of single layers: 69 and 52 results
    assert sum(one.middle for one in made) == 69 - 11 + 52 - 11


def test_training_step(parity, cases, all_hold):
    all_hold(
        parity.vpd.check_step(cases / 'vpd_small', dtypes=(torch.float64,)),
        'float64 train_loss',
        'float64 train_logits_quarter',
        'float64 gradients of 692 tensors',
        'gradients where there must be none',
        'float64 statistics of 12 norms',
        'learning rates other than 5e-5',
        'tensors in a wrong group',
        'float64 first steps of 692 tensors',
    )
