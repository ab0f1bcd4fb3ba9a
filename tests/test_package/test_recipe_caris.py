"""The recipe of CARIS is the published one: who learns how fast, and what is compared."""

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from recipe_helpers import learned, load, rates

CARIS_PARTS = ('text_encoder', 'backbone', 'rest')


# Published counts by part: weights without and with decay.
CARIS = {
    'tiny': dict(backbone=(49_434, 27_471_264), rest=(25_600, 30_394_304)),
    'base': dict(
        text_encoder=(23_874_048, 85_017_600),
        backbone=(122_936, 86_622_080),
        rest=(25_600, 30_910_400),
    ),
}


def check_caris(size, bert):
    """Compare with the published rule, in words of our names, and with published counts."""
    changes = {'model.text_encoder.config': bert, 'model.backbone.pretrained': None}
    cfg = load('caris', f'caris_swin-{size}-w7_2xb8-50e_refcoco-448x448', changes)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1.0)
    assert cfg.model.text_encoder.context_length == 20
    model = MODELS.build(cfg.model)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # without a GPU, no AMP
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    groups, counts = learned(optimizer), {part: [0, 0] for part in CARIS_PARTS}
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        part = name.split('.')[0]
        layer_norm = isinstance(modules[name.rpartition('.')[0]], torch.nn.LayerNorm)
        alone = any(word in name for word in ('.embeddings.', 'bias_table', '.prompts.learned'))
        still = layer_norm or alone or name == 'decode_head.prompts'
        part = part if part in CARIS_PARTS else 'rest'
        rate = 1e-4 if part == 'rest' else 1e-5
        assert groups[id(parameter)] == (pytest.approx(rate), 0.0 if still else 0.01), name
        counts[part][not still] += parameter.numel()
    for part, expected in CARIS[size].items():
        assert tuple(counts[part]) == expected, part


def test_groups_of_caris():
    check_caris('tiny', dict(vocab_size=11, hidden_size=768, intermediate_size=8))


@pytest.mark.slow
def test_groups_of_caris_as_published():
    check_caris('base', {})


def test_rate_of_caris_rises_and_falls():
    cfg = load('caris', 'caris_swin-base-w7_2xb8-50e_refcoco-448x448')
    assert cfg.train_cfg.max_epochs == 50
    i, last = np.arange(2000), 50 * 40 - 1
    # The published fall begins behind the warm-up, but counts from the first iteration.
    warm = np.minimum(1 - (1 - i / 1500) * 0.999, 1)
    found = rates(cfg, 50, 40)[:, 0]
    np.testing.assert_allclose(found, 1e-5 * warm * (1 - i / last) ** 0.9, rtol=1e-6, atol=1e-12)
