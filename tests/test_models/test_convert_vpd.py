"""VPD's checkpoints; names are the published ones, and shapes those of the network."""

import argparse
import gzip
import json
from pathlib import Path

import pytest
import torch

from nemo_mmseg.models.converters.convert import base_models, convert_checkpoint, parameter_shapes
from nemo_mmseg.models.converters.rename import inverse, translate
from nemo_mmseg.models.converters.vpd import convert_vpd

CASE = Path(__file__).resolve().parents[1] / 'data' / 'parity' / 'vpd_small'
ATTENTION = 'encoder_vq.encoder.mid.attn_1.'


def empty(*shape):
    return torch.empty(shape, device='meta')


@pytest.fixture(scope='module')
def shapes():
    """Published name -> shape of what the network has, 40 tokens."""
    back = inverse(convert_vpd.table)
    return {
        translate(back, name): shape
        for name, shape in parameter_shapes(base_models(convert_vpd)['vpd_sd15']).items()
    }


@pytest.fixture
def published(shapes):
    """A checkpoint as the training saves it, without memory."""
    names = json.loads(gzip.decompress((CASE / 'names.json.gz').read_bytes()))['model']
    model = {name: empty(*shapes.get(name, (3,))) for name in names}
    for name in names:  # convolutions with a kernel of 1 x 1
        if name.startswith(ATTENTION) and name.endswith('.weight') and 'norm' not in name:
            model[name] = model[name][..., None, None]
    optimizer = dict(state={0: dict(exp_avg=torch.zeros(3))}, param_groups=[dict(lr=5e-5)])
    return dict(
        model=model,
        optimizer=optimizer,
        epoch=39,
        args=argparse.Namespace(token_length=40),
        lr_scheduler=dict(last_epoch=9),
    )


def with_tokens(model, tokens):
    """The two convolutions that read attention maps, for another number of tokens."""
    for name, others in (('classifier.conv1_4', 1280 + 1280), ('classifier.conv1_3', 640 + 640)):
        name = f'{name}.weight'
        shape = list(model[name].shape)
        assert shape[1] == others + 40
        model[name] = empty(shape[0], others + tokens, *shape[2:])


def test_every_tensor_is_used_or_left_out_with_a_reason(published, shapes):
    converted = convert_checkpoint('vpd', published)
    assert converted.model == 'vpd_sd15'
    reasons = {name: why for name, why in converted.left_out.items() if name in published['model']}
    unet = 'unet.unet.diffusion_model.out.'
    assert reasons.keys() == {
        *(f'{unet}{i}.{kind}' for i in (0, 2) for kind in ('weight', 'bias')),
        *(f'encoder_vq.post_quant_conv.{kind}' for kind in ('weight', 'bias')),
    }
    assert all('does not use' in why or 'does not do' in why for why in reasons.values())
    # published counts
    prefixes = [name.split('.')[0] for name in published['model']]
    assert prefixes.count('unet') == 686 and prefixes.count('encoder_vq') == 110
    assert len(converted.state_dict) == len(shapes) == len(published['model']) - 6
    besides = converted.left_out.keys() - reasons.keys()
    assert besides == {'optimizer', 'epoch', 'args', 'lr_scheduler'}
    ours = converted.state_dict['backbone.vae.encoder.mid_block.attentions.0.to_q.weight']
    assert ours.ndim == 2


def test_number_of_tokens_tells_the_model(published):
    with_tokens(published['model'], 77)
    assert convert_checkpoint('vpd', published).model == 'vpd_sd15_77'


def test_another_number_of_tokens_is_named(published):
    with_tokens(published['model'], 50)
    with pytest.raises(ValueError, match=r'classifier\.conv1_[34]\.weight is .*, should be'):
        convert_checkpoint('vpd', published)


def test_the_unet_of_another_version_is_named(published):
    name = 'unet.unet.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight'
    published['model'][name] = empty(1280, 1024)
    with pytest.raises(ValueError, match=rf'{name} is \(1280, 1024\), should be \(1280, 768\)'):
        convert_checkpoint('vpd', published)


def test_other_methods_are_told_apart(published):
    with pytest.raises(ValueError, match=r"not a CARIS .*\(it is one for 'vpd'\)"):
        convert_checkpoint('caris', published)
