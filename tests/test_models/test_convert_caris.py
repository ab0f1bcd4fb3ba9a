"""CARIS's checkpoints; names and shapes are the published ones."""

import argparse
import gzip
import json
from pathlib import Path

import pytest
import torch

from nemo_mmseg.models.converters.convert import convert_checkpoint, convert_file

CASE = Path(__file__).resolve().parents[1] / 'data' / 'parity' / 'caris_swin_t'


@pytest.fixture
def published():
    """A checkpoint of Swin-T as the training saves it, without memory."""
    names = json.loads(gzip.decompress((CASE / 'names.json.gz').read_bytes()))['model']
    model = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device='meta')
        for name, (shape, dtype) in names.items()
    }
    optimizer = dict(state={0: dict(exp_avg=torch.zeros(3))}, param_groups=[dict(lr=5e-5)])
    return dict(
        model=model,
        optimizer=optimizer,
        epoch=49,
        args=argparse.Namespace(swin_type='tiny'),
        lr_scheduler=dict(last_epoch=9),
        scaler=dict(scale=65536.0),
    )


def test_every_tensor_is_used_or_left_out_with_a_reason(published):
    converted = convert_checkpoint('caris', published)
    assert converted.model == 'caris_swin-tiny-w7'
    reasons = {name: why for name, why in converted.left_out.items() if name in published['model']}
    assert [name for name in reasons if 'position_index' not in name] == [
        'criterion.seg_criterion.weight'
    ]
    assert len(published['model']) == 758 and len(reasons) == 12 + 1
    assert len(converted.state_dict) + len(reasons) == 758
    # the published count of parameters: nothing is dead
    assert sum(tensor.numel() for tensor in converted.state_dict.values()) == 166_832_250
    besides = converted.left_out.keys() - reasons.keys()
    assert besides == {'optimizer', 'epoch', 'args', 'lr_scheduler', 'scaler'}
    # the state dict alone; a network that was saved without its loss
    del published['model']['criterion.seg_criterion.weight']
    assert convert_checkpoint('caris', published['model']).model == converted.model


def test_of_a_checkpoint_of_maskris_a_dead_tensor_is_left_out(published):
    name = 'backbone.vis_encoder.mask_token'
    plain = convert_checkpoint('caris', published)
    published['model'][name] = torch.empty(1, 1, 96, device='meta')
    converted = convert_checkpoint('caris', published)
    assert converted.state_dict.keys() == plain.state_dict.keys()
    assert converted.left_out == {**plain.left_out, name: converted.left_out[name]}
    assert 'MaskRIS' in converted.left_out[name]


def test_tensors_are_not_copied(published):
    name = 'pixel_decoder.encoder.3.vis_mlp.fc1.weight'
    converted = convert_checkpoint('caris', published)
    ours = converted.state_dict['decode_head.layers.3.pixel_layer.ffn.0.weight']
    assert ours is published['model'][name]


def test_other_methods_are_told_apart(published):
    with pytest.raises(ValueError, match=r"not a LAVT .*\(it is one for 'caris'\)"):
        convert_checkpoint('lavt_one', published)
    lavt = json.loads(
        gzip.decompress((CASE.parent / 'lavt_swin_t' / 'names_lavt_one.json.gz').read_bytes())
    )['model']
    lavt = {name: torch.empty(shape, device='meta') for name, (shape, _) in lavt.items()}
    with pytest.raises(ValueError, match=r"not a CARIS .*\(it is one for 'lavt_one'\)") as raised:
        convert_checkpoint('caris', dict(model=lavt))
    assert '480 unknown tensors: backbone.patch_embed.proj.weight' in str(raised.value)


def test_another_size_is_named(published):
    model = published['model']
    for name in list(model):  # the depth of Swin-S
        if '.layers.2.blocks.5.' in name:
            for block in range(6, 18):
                model[name.replace('blocks.5', f'blocks.{block}')] = model[name]
    pattern = 'does not fit any base model; nearest is caris_swin-tiny-w7: .* that it does not have'
    with pytest.raises(ValueError, match=pattern) as raised:
        convert_checkpoint('caris', published)
    assert 'backbone.vis_encoder.layers.2.blocks.6.norm1.weight' in str(raised.value)


def test_another_window_is_named(published):
    name = 'backbone.vis_encoder.layers.1.blocks.0.attn.relative_position_bias_table'
    published['model'][name] = torch.empty(23**2, 6, device='meta')
    with pytest.raises(ValueError, match=rf'{name} is \(529, 6\), should be \(169, 6\)'):
        convert_checkpoint('caris', published)


def test_what_is_missing_or_unknown_is_named(published):
    del published['model']['pixel_decoder.vis_prompts.weight']
    with pytest.raises(ValueError, match='1 missing tensor: pixel_decoder.vis_prompts.weight'):
        convert_checkpoint('caris', published)
    published['model']['backbone.vis_encoder.other_token'] = torch.empty(1, 1, 96)
    with pytest.raises(ValueError, match='1 unknown tensor: backbone.vis_encoder.other_token'):
        convert_checkpoint('caris', published)


def test_a_file_with_the_command_line_is_read_and_named(tmp_path):
    content = dict(model={'a.b': torch.zeros(2)}, args=argparse.Namespace(swin_type='tiny'))
    torch.save(content, tmp_path / 'best.pth')
    with pytest.raises(ValueError, match='best.pth: not a CARIS checkpoint: 1 unknown tensor: a.b'):
        convert_file('caris', tmp_path / 'best.pth', tmp_path / 'ours.pth')
    assert not (tmp_path / 'ours.pth').exists()
