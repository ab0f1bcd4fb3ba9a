"""Swin's classification weights: two layouts, other windows, and files that do not fit."""

import argparse
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmseg.models.backbones import SwinTransformer
from PIL import Image

import nemo_mmseg.models.utils.swin_weights as module
from nemo_mmseg.models.backbones.lavt_swin_transformer import LAVTSwinTransformer

lavt = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name('published_lavt.py'))))
SIZE = dict(embed=8, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4), window=3)


def load_swin_weights(backbone, weights):
    module.load_swin_weights(backbone, weights, new_parts=('fusions', 'gates'))


@pytest.fixture
def official():
    """The state dict of a classifier as Swin's authors publish it."""
    torch.manual_seed(0)
    return {
        **lavt.published_swin(**SIZE),
        'layers.1.blocks.1.attn_mask': torch.zeros(4, 9, 9),
        **lavt.layer('norm', 64),
        **lavt.layer('head', 5, 64),
    }


@pytest.fixture
def save(tmp_path):
    def write(content, name='swin.pth'):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write


def build(kind=LAVTSwinTransformer, **changes):
    torch.manual_seed(1)
    size = {**SIZE, **changes}
    names = dict(embed='embed_dims', depths='depths', heads='num_heads', window='window_size')
    settings = {names[key]: value for key, value in size.items()}
    if kind is LAVTSwinTransformer:
        settings['word_channels'] = 12
    return kind(**settings)


def openmmlab(official):
    """The same weights as OpenMMLab's files have them, written without the converter."""
    state = {}
    for name, tensor in official.items():
        if 'downsample' in name:
            blocks = tensor.chunk(4, -1)  # (0,0), (1,0), (0,1), (1,1)
            in_rows = torch.stack([blocks[k] for k in (0, 2, 1, 3)], -1)
            tensor = in_rows.reshape(tensor.shape)
        for before, after in (
            ('layers', 'stages'),
            ('patch_embed.proj', 'patch_embed.projection'),
            ('attn.', 'attn.w_msa.'),
            ('mlp.fc1', 'ffn.layers.0.0'),
            ('mlp.fc2', 'ffn.layers.1'),
        ):
            name = name.replace(before, after)
        prefix = '' if name.startswith('head') else 'backbone.'
        state[prefix + name] = tensor
    # the classifier's last norm is called after its stage there
    state['backbone.norm3.weight'] = state.pop('backbone.norm.weight')
    state['backbone.norm3.bias'] = state.pop('backbone.norm.bias')
    return state


def test_official_weights_fill_swin_and_nothing_else(official, save, monkeypatch):
    lines = []
    monkeypatch.setattr(module, 'print_log', lambda line, logger: lines.append(line))
    backbone = build()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    load_swin_weights(backbone, save(dict(model=official)))
    after = backbone.state_dict()
    same = {name.split('.')[0] for name in before if torch.equal(before[name], after[name])}
    assert same == {'fusions', 'gates', 'norm0', 'norm1', 'norm2', 'norm3'}
    kept = [name for name in before if name.split('.')[0] not in same]
    assert not any(torch.equal(before[name], after[name]) for name in kept)
    published = official['layers.1.blocks.1.mlp.fc2.weight']
    assert torch.equal(after['stages.1.blocks.1.ffn.layers.1.weight'], published)
    (line,) = lines
    assert line.startswith(f'Swin: {len(kept)} tensors from ') and '0 bias tables resized' in line
    # five position indices, a mask, the norm and the head
    assert '10 tensors left out' in line and 'classifies images' in line


@pytest.mark.parametrize('wrap', ['state_dict', None])
def test_openmmlabs_layout_gives_the_same(official, save, wrap):
    theirs = openmmlab(official)
    assert 'backbone.stages.1.blocks.1.attn.w_msa.relative_position_index' in theirs
    if wrap is None:  # as MMSegmentation's own converter writes it
        theirs = {name.removeprefix('backbone.'): tensor for name, tensor in theirs.items()}
    one, two = build(), build()
    load_swin_weights(one, save(dict(model=official)))
    load_swin_weights(two, save(dict(state_dict=theirs, meta={}) if wrap else theirs, 'mm.pth'))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_mmsegmentations_swin_loads_too(official, save):
    plain, ours = build(SwinTransformer), build()
    index = plain.stages[0].blocks[0].attn.w_msa.relative_position_index.clone()
    for backbone in (plain, ours):
        load_swin_weights(backbone, save(dict(model=official)))
    for name, tensor in plain.stages.state_dict().items():
        if 'relative_position_index' not in name:
            assert torch.equal(tensor, ours.stages.state_dict()[name]), name
    assert torch.equal(plain.stages[0].blocks[0].attn.w_msa.relative_position_index, index)


def cubic_weights(old, new):
    """(new, old) matrix of cubic interpolation with a = -0.75, half-pixel centres, clamped ends."""
    matrix = np.zeros((new, old))
    for row in range(new):
        place = (row + 0.5) * old / new - 0.5
        first = int(np.floor(place)) - 1
        for k in range(4):
            x = abs(place - (first + k))
            if x <= 1:
                value = 1.25 * x**3 - 2.25 * x**2 + 1
            else:
                value = -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
            matrix[row, min(max(first + k, 0), old - 1)] += value
    return matrix


@pytest.mark.parametrize('window', [2, 5])
@pytest.mark.parametrize('layout', ['official', 'openmmlab'])
def test_tables_of_another_window_are_resized(official, save, window, layout, monkeypatch):
    lines = []
    monkeypatch.setattr(module, 'print_log', lambda line, logger: lines.append(line))
    content = dict(model=official) if layout == 'official' else openmmlab(official)
    backbone = build(window=window)
    load_swin_weights(backbone, save(content))
    assert '5 bias tables resized' in lines[0]
    old, new = 2 * SIZE['window'] - 1, 2 * window - 1
    matrix = cubic_weights(old, new)
    table = official['layers.3.blocks.0.attn.relative_position_bias_table'].double().numpy()
    got = backbone.stages[3].blocks[0].attn.w_msa.relative_position_bias_table.detach().numpy()
    assert got.shape == (new**2, 4)
    for head in range(4):
        expected = matrix @ table[:, head].reshape(old, old) @ matrix.T
        np.testing.assert_allclose(got[:, head].reshape(new, new), expected, atol=1e-5)


def test_a_larger_window_keeps_the_picture_of_each_head():
    """Seen from afar, PIL's enlargement of a smooth table is ours: no head is turned or mixed."""
    side, larger = 13, 23
    rows, columns = np.mgrid[0:side, 0:side] / side
    heads = np.stack([rows, columns**2, rows * columns], -1).astype(np.float32)
    state = {'relative_position_bias_table': torch.from_numpy(heads).reshape(-1, 3)}
    wanted = {'relative_position_bias_table': torch.zeros(larger**2, 3)}
    assert module.resize_tables(state, wanted) == 1
    ours = state['relative_position_bias_table'].reshape(larger, larger, 3).numpy()
    for head in range(3):
        picture = Image.fromarray(heads[..., head]).resize((larger, larger), Image.BICUBIC)
        assert np.abs(ours[..., head] - np.asarray(picture)).max() < 0.02


def test_what_does_not_fit_is_named(official, save):
    def refused(content, pattern, **changes):
        backbone = build(**changes)
        before = [tensor.clone() for tensor in backbone.state_dict().values()]
        path = save(content, 'wrong.pth')
        with pytest.raises(ValueError, match=f'(?s)wrong.pth.*{pattern}'):
            load_swin_weights(backbone, path)
        after = backbone.state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(before, after))

    def without(name):
        return {n: t for n, t in official.items() if n != name}

    name = 'layers.2.blocks.0.mlp.fc1.weight'
    refused(dict(model=without(name)), f'1 missing tensor: {name}$')
    theirs = openmmlab(official)
    del theirs['backbone.stages.2.blocks.0.ffn.layers.0.0.weight']
    refused(theirs, '1 missing tensor: stages.2.blocks.0.ffn.layers.0.0.weight')
    wrong = dict(model={**official, name: torch.zeros(3, 3)})
    refused(wrong, rf'1 tensor of another shape: {name} is \(3, 3\), should be \(128, 32\)')
    size = r'patch_embed.proj.weight is \(8, 3, 4, 4\), should be \(16, 3, 4, 4\)'
    table = 'layers.1.blocks.0.attn.relative_position_bias_table'
    for shape in ((), (5,), (1, 9, 9, 4)):
        refused(dict(model={**official, table: torch.zeros(shape)}), f'another shape: {table} is')
    refused(dict(model=official), size, embed=16)
    refused(dict(model=official), 'bias_table is', heads=(2, 4, 4, 8))
    # published loaders lose the blocks of a deeper network in silence
    deeper = r'13 tensors that it does not have: layers.1.blocks.1.norm1.weight.*mlp.fc2.bias$'
    refused(dict(model=official), deeper, depths=(1, 1, 1, 1))
    refused(dict(model={**official, 'absolute_pos_embed': torch.zeros(1)}), 'absolute_pos_embed')
    uneven = {**official, 'layers.0.downsample.norm.weight': torch.zeros(31)}
    refused(dict(model=uneven), r'downsample.norm.weight is \(31,\), should be \(32,\)')
    table = 'layers.0.blocks.0.attn.relative_position_bias_table'
    refused(dict(model={**official, table: torch.zeros(24, 1)}), r'bias_table is \(24, 1\)')
    refused(dict(model={'conv1.weight': torch.zeros(1)}), 'not a Swin checkpoint.*conv1.weight')
    refused(dict(model={}), 'missing tensors: patch_embed.proj.weight')
    refused([1], 'no state dict')
    refused(dict(model={**official, 0: torch.zeros(1)}), '1 unknown tensor: 0')
    refused(dict(model=official, log=HistoryBuffer([1.0], [1])), 'it holds mmengine.*HistoryBuffer')
    refused(dict(model=official, args=argparse.Namespace(lr=1)), 'cannot be read as a checkpoint')
    cut = Path(save(dict(model=official), 'cut.pth'))
    cut.write_bytes(cut.read_bytes()[:5000])
    with pytest.raises(ValueError, match='cut.pth cannot be read'):
        load_swin_weights(build(), cut)
    with pytest.raises(FileNotFoundError, match='none.pth'):
        load_swin_weights(build(), cut.with_name('none.pth'))


def test_half_precision_and_a_wrapper_are_borne(official, save):
    half = {f'module.{n}': t.half() for n, t in official.items()}
    backbone = build(window=4)
    load_swin_weights(backbone, save(dict(model=half)))
    weight = backbone.stages[0].blocks[0].ffn.layers[1].weight
    assert weight.dtype == torch.float32
    expected = official['layers.0.blocks.0.mlp.fc2.weight'].half().float()
    assert torch.equal(weight, expected)


def test_the_backbone_loads_them_when_it_is_initialised(official, save):
    backbone = build()
    backbone.pretrained = save(dict(model=official))
    backbone.init_weights()
    weight = backbone.stages[0].blocks[0].ffn.layers[1].weight
    assert torch.equal(weight, official['layers.0.blocks.0.mlp.fc2.weight'])
