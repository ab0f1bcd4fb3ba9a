"""Checkpoints of TRIS's two stages; names and shapes are the published ones."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from nemo_mmseg.models.converters.convert import convert_checkpoint

CASES = Path(__file__).resolve().parents[1] / 'data' / 'parity'


def published(stage):
    """A checkpoint as the training of a stage saves it, without memory."""
    names = json.loads(gzip.decompress((CASES / stage / 'names.json.gz').read_bytes()))
    model = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device='meta')
        for name, (shape, dtype) in names.items()
    }
    optimizer = dict(state={0: dict(exp_avg=torch.zeros(3))}, param_groups=[dict(lr=5e-5)])
    return dict(model=model, optimizer=optimizer, lr_scheduler=dict(last_epoch=14), epoch=14)


@pytest.mark.parametrize('stage, left_out', [('tris_stage1', 10), ('tris_stage2', 11)])
def test_every_tensor_is_used_or_left_out_with_a_reason(stage, left_out):
    given = published(stage)
    converted = convert_checkpoint(stage, given)
    assert converted.model == f'{stage.replace("_", "-")}_r50'
    reasons = {name: why for name, why in converted.left_out.items() if name in given['model']}
    assert len(reasons) == left_out and all(reasons.values())
    assert len(converted.state_dict) + left_out == len(given['model'])
    assert {'optimizer', 'lr_scheduler', 'epoch'} <= converted.left_out.keys()
    # the state dict alone
    assert convert_checkpoint(stage, given['model']).model == converted.model


@pytest.mark.parametrize('stage, other', [('tris_stage1', 2), ('tris_stage2', 1)])
def test_a_checkpoint_of_the_other_stage_is_refused_by_name(stage, other):
    pattern = rf"not a TRIS, stage {3 - other} checkpoint: .*\(it is one for 'tris_stage{other}'\)"
    with pytest.raises(ValueError, match=pattern) as raised:
        convert_checkpoint(stage, published(f'tris_stage{other}'))
    assert {1: 'vis_project.weight', 2: 'attention2.Wk.weight'}[other] in str(raised.value)


@pytest.mark.parametrize('stage, name', [('tris_stage1', 'lan_project.bias')])
def test_what_is_missing_is_named(stage, name):
    given = published(stage)
    del given['model'][name]
    with pytest.raises(ValueError, match=f'does not fit any base model.*1 missing tensor: {name}'):
        convert_checkpoint(stage, given)
