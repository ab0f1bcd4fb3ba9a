"""LAVT's two layouts give our network what makes it compute what the published one computes."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmseg.registry import MODELS

import nemo_mmseg  # noqa: F401
from nemo_mmseg.models.converters.lavt import convert_lavt, convert_lavt_one
from nemo_mmseg.models.structures import TextFeatures

HELPERS = Path(__file__).with_name('published_lavt.py')
lavt = SimpleNamespace(**runpy.run_path(str(HELPERS)))


def part(state, name):
    return {n.removeprefix(f'{name}.'): t for n, t in state.items() if n.startswith(f'{name}.')}


@pytest.fixture
def published():
    torch.manual_seed(0)
    return lavt.published_lavt()


def test_converted_weights_compute_the_published_function(published):
    double = {n: t.double() if t.is_floating_point() else t for n, t in published['model'].items()}
    published['model'] = double
    state, _ = convert_lavt(published)
    config = lavt.our_model()
    backbone = MODELS.build(config['backbone']).double().eval()
    head = MODELS.build(config['decode_head']).double().eval()
    backbone.load_state_dict(part(state, 'backbone'), strict=True)
    head.load_state_dict(part(state, 'decode_head'), strict=True)
    assert set(state) == {
        f'{where}.{name}'
        for where, found in (
            ('backbone', backbone.state_dict()),
            ('decode_head', head.state_dict()),
            ('text_encoder.bert', published['bert_model']),
        )
        for name in found
    }
    image = torch.randn(2, 3, 64, 128, dtype=torch.float64)
    words = torch.randn(2, 7, lavt.TINY_BERT['words'], dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    expected = lavt.run_published(double, image, words, mask.double())
    text = TextFeatures(words, mask, None, torch.arange(2))
    with torch.no_grad():
        logits = head(backbone(backbone(image), text), text).logits
    assert expected.shape == (2, 2, 16, 32) and expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def test_what_has_no_place_is_listed_with_its_reason(published):
    published['bert_model'] |= {
        'pooler.dense.weight': torch.zeros(24, 24),
        'pooler.dense.bias': torch.zeros(24),
        'embeddings.position_ids': torch.arange(20)[None],
    }
    published['args'] = object()
    state, left_out = convert_lavt(published)
    assert not any('pooler' in name or 'position_ids' in name for name in state)
    assert (
        'optimizer' in left_out
        and 'window' in (left_out['backbone.layers.2.blocks.0.attn.relative_position_index'])
    )
    assert sorted(name for name in left_out if 'relative_position_index' not in name) == [
        'args',
        'backbone.layers.3.res_gate.0.weight',
        'backbone.layers.3.res_gate.2.weight',
        'bert_model.embeddings.position_ids',
        'bert_model.pooler.dense.bias',
        'bert_model.pooler.dense.weight',
        'epoch',
        'lr_scheduler',
        'optimizer',
    ]
    tensors = len(published['model']) + len(published['bert_model'])
    assert len(state) + len(left_out) == tensors + 4
    # neither the gate nor the index has to be there
    for name in [n for n in published['model'] if n in left_out]:
        del published['model'][name]
    assert convert_lavt(published)[0].keys() == state.keys()


def test_both_layouts_give_the_same(published):
    apart, _ = convert_lavt(published)
    whole = dict(published)
    texts = {f'text_encoder.{n}': t for n, t in whole.pop('bert_model').items()}
    whole['model'] = {**published['model'], **texts}
    for given in (
        whole,
        whole['model'],
        {f'module.{n}': t for n, t in whole['model'].items()},
    ):
        inside, _ = convert_lavt_one(given)
        assert inside.keys() == apart.keys()
        assert all(torch.equal(inside[name], apart[name]) for name in apart)
    assert (
        apart['text_encoder.bert.encoder.layer.1.output.dense.bias']
        is (published['bert_model']['encoder.layer.1.output.dense.bias'])
    )


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_precision_stays(published, dtype):
    for entry in ('model', 'bert_model'):
        published[entry] = {
            n: t.to(dtype) if t.is_floating_point() else t for n, t in published[entry].items()
        }
    state, _ = convert_lavt(published)
    kinds = {n: t.dtype for n, t in state.items() if not n.endswith('num_batches_tracked')}
    assert set(kinds.values()) == {dtype}
    assert state['decode_head.steps.0.conv1.bn.num_batches_tracked'].dtype == torch.int64


def test_unknown_tensors_are_named(published):
    published['model']['backbone.layers.1.blocks.0.attn.gamma'] = torch.zeros(1)
    with pytest.raises(ValueError, match='1 unknown tensor: backbone.layers.1.blocks.0.attn.gamma'):
        convert_lavt(published)
    published = lavt.published_lavt()
    published['bert_model']['cls.bias'] = torch.zeros(1)
    with pytest.raises(ValueError, match='unknown tensor: bert_model.cls.bias'):
        convert_lavt(published)
    published = lavt.published_lavt()
    published['ema'] = [dict(weight=torch.zeros(1))]
    with pytest.raises(ValueError, match="nothing is known of the tensors in 'ema'"):
        convert_lavt(published)
    published['ema'] = [0.5]
    assert 'ema' in convert_lavt(published)[1]
