"""MaskRIS hides what the published code hid, and a step has its losses and gradients.

The case ../shared/parity/maskris; `tests/parity/check_parity.py --small` makes the files.
"""

import pytest


def test_patches_and_tokens(parity, cases, all_hold):
    made = all_hold(
        parity.maskris.check_masking(cases / 'maskris'),
        'image_p32_448, 147 of 196 hidden',
        'image_p8_80_90, 91 of 100 hidden',
        'image_p32_96_0, 0 of 9 hidden',
        'text_script (256, 20)',
        'text_default_sub',
        'text_ratio1',
    )
    assert len(made) == 2 * 6 + 3 + 1


@pytest.mark.slow
def test_a_training_step(parity, cases, all_hold):
    made = all_hold(
        parity.maskris.check_step(cases / 'maskris'),
        'masked_ids (2, 20)',
        'patch_mask',
        'masked_image_sub',
        'masked_logits_low',
        'loss_masked',
        'loss_total',
        'grad_total_norm_pass1',
        'loss64_masked',
        'masked64_logits_low',
    )
    assert sum(one.middle for one in made) == 2 * 745
