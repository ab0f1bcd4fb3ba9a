"""The recipe of VPD is the published one: who learns how fast."""

from collections import Counter

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from recipe_helpers import learned, load

from nemo_mmseg.models.converters.rename import inverse, translate
from nemo_mmseg.models.converters.vpd import convert_vpd


def test_groups_of_vpd():
    changes = {
        'model.text_encoder.clip': dict(model='RefShapes-CLIP', pretrained='refshapes'),
        'model.text_encoder.context_length': 32,
        'model.backbone.block_channels': (32, 64, 128, 128),
        'model.backbone.pretrained': None,
        'model.neck': dict(block_channels=(32, 64, 128, 128), word_channels=128, pretrained=None),
    }
    cfg = load('vpd', 'vpd_sd15_8xb4-40e_refcoco-512x512', changes)
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    groups, back = learned(optimizer), inverse(convert_vpd.table)
    counts = Counter()
    for name, parameter in model.named_parameters():
        # published groups go by published names
        theirs = translate(back, name)
        if 'encoder_vq' in theirs:
            assert not parameter.requires_grad and id(parameter) not in groups
            counts['frozen'] += 1
            continue
        without = 'norm' in theirs
        assert groups[id(parameter)] == (5e-5, 0.0 if without else 0.01), name
        counts['norm' if without else 'unet' if 'unet' in theirs else 'rest'] += 1
    # published: 128, 558, 110 and 25; four of the UNet and two of the encoder feed nothing
    assert counts == dict(norm=128, unet=558 - 4, frozen=110 - 2, rest=25)


@pytest.mark.parametrize('nemo', ['', 'nemo_'])
@pytest.mark.parametrize(
    'data, tokens', [('refcoco', 40), ('refcoco-plus', 40), ('refcocog-umd', 77)]
)
def test_sizes_of_vpd(data, tokens, nemo):
    cfg = load('vpd', f'vpd_sd15_{nemo}8xb4-40e_{data}-512x512')
    assert cfg.model.text_encoder.context_length == tokens
    assert tuple(cfg.model.decode_head.in_channels) == (320, 640 + tokens, 1280 + tokens, 1280)
    assert cfg.train_dataloader.batch_size == 4 and cfg.auto_scale_lr.base_batch_size == 32
    assert cfg.sync_bn == 'torch' and 'clip_grad' not in cfg.optim_wrapper
    assert cfg.train_cfg.max_epochs == 40
    to_input = MODELS.build(cfg.model.data_preprocessor)
    for value, expected in ((0, -1.0), (255, 1.0)):
        image = torch.full((3, 64, 64), value, dtype=torch.uint8)
        inputs = to_input(dict(inputs=[image]))['inputs']
        torch.testing.assert_close(inputs, torch.full((1, 3, 64, 64), expected))
