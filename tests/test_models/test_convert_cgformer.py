"""CGFormer's published names, as the release saves them, and what is no such file."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from nemo_mmseg.models.converters.cgformer import convert_cgformer
from nemo_mmseg.models.converters.convert import base_models, convert_checkpoint, convert_file
from nemo_mmseg.models.converters.converter import CONVERTERS

NAMES = Path(__file__).resolve().parents[1] / 'data' / 'parity' / 'cgformer' / 'names.json.gz'
READER = ('norm.weight', 'norm.bias', 'mlp.fc1.weight', 'mlp.fc1.bias', 'mlp.fc2.weight')
DEAD = {
    *(f'backbone.layers.3.pwam_gate.{i}.weight' for i in (0, 2)),
    *(f'decoder.layers.{k}.loadtoken.{n}' for k in (1, 2) for n in (*READER, 'mlp.fc2.bias')),
}


@pytest.fixture(scope='module')
def names():
    """Published name -> shape, by the published code."""
    stored = json.loads(gzip.decompress(NAMES.read_bytes()))['model_state_dict']
    return {name: tuple(shape) for name, (shape, _) in stored.items()}


@pytest.fixture
def published(names):
    """What the published training saves, with tensors that take no memory."""
    state = {name: torch.zeros(()).expand(shape) for name, shape in names.items()}
    optimizer = dict(state={0: dict(exp_avg=torch.zeros(2))}, param_groups=[dict(lr=1e-4)])
    return dict(
        epoch=49,
        cur_iou=torch.tensor(0.74),
        best_iou=torch.tensor(0.73),
        prec={'Pr@50': 0.8},
        model_state_dict=state,
        optimizer=optimizer,
        scheduler=dict(last_epoch=49),
    )


def test_every_tensor_is_used_or_left_out_with_a_reason(published, tmp_path):
    torch.save(published, tmp_path / 'in.pth')
    converted = convert_file('cgformer', tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert converted.model == 'cgformer_swin-base-w12'
    state = published['model_state_dict']
    left_out = {name for name in converted.left_out if name in state}
    assert {name for name in left_out if 'relative_position_index' not in name} == DEAD
    assert len(converted.state_dict) + len(left_out) == len(state)
    assert set(converted.left_out) - left_out == set(published) - {'model_state_dict'}
    assert all(converted.left_out.values())
    plain = {f'module.{name}': tensor for name, tensor in state.items()}
    assert convert_cgformer(plain)[0].keys() == converted.state_dict.keys()


def test_nothing_is_copied_but_what_has_another_layout(names):
    state = {name: torch.zeros(()).expand(shape) for name, shape in names.items()}
    renamed, _ = convert_cgformer(dict(model_state_dict=state))
    known = {id(tensor) for tensor in state.values()}
    changed = {name for name, tensor in renamed.items() if id(tensor) not in known}
    # patch merging; weights of 1-d convolutions
    assert all('.downsample.' in name or '.fusions.' in name for name in changed)
    assert sum(renamed[name].numel() for name in changed) < 0.1 * sum(
        tensor.numel() for tensor in renamed.values()
    )


def test_another_method_is_recognised(published):
    state = published['model_state_dict']
    with pytest.raises(ValueError, match=r"not a LAVT .*\(it is one for 'cgformer'\)"):
        convert_checkpoint('lavt_one', published)
    gates = {n.replace('pwam_gate', 'res_gate').replace('pwam_fusion', 'fusion'): n for n in state}
    lavt = {name: state[n] for name, n in gates.items() if not n.startswith('decoder')}
    with pytest.raises(ValueError, match=r'not a CGFormer .*unknown tensor.*fusion'):
        convert_checkpoint('cgformer', dict(model_state_dict=lavt))
    with pytest.raises(ValueError, match="it has no state dict 'model_state_dict', but model"):
        convert_checkpoint('cgformer', dict(model={}, epoch=3))


def test_another_size_is_named(published):
    model = base_models(CONVERTERS['cgformer'])['cgformer_swin-base-w12']
    model['decode_head']['image_size'] = (320, 320)
    pattern = r'decoder.layers.0.positional_embedding is \(900, 512\), should be \(400, 512\)'
    with pytest.raises(ValueError, match=pattern):
        convert_checkpoint('cgformer', published, model)
    state = published['model_state_dict']
    state['decoder.tokens.weight'] = torch.zeros(3, 512)
    pattern = (
        r'nearest is cgformer_swin-base-w12: .*tokens.weight is \(3, 512\), should be \(2, 512'
    )
    with pytest.raises(ValueError, match=pattern):
        convert_checkpoint('cgformer', published)
