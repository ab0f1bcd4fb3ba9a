"""A published checkpoint fits one of our networks, or an error says which tensor does not."""

import argparse
import os
import pickle
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS

import nemo_mmseg  # noqa: F401
from nemo_mmseg.apis.inference import fill_model
from nemo_mmseg.compat import only_globals
from nemo_mmseg.models.converters.convert import (
    base_models,
    convert_checkpoint,
    convert_file,
    parameter_shapes,
)
from nemo_mmseg.models.converters.converter import CONVERTERS

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / 'tests' / 'test_models' / 'published_lavt.py'
lavt = SimpleNamespace(**runpy.run_path(str(HELPERS)))
MODEL = lavt.our_model()
CRIS = ('cris_r50', 'cris_r101')
OTHER_SIZES = {
    'lavt_swin-tiny-w7': dict(embed=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7),
    'lavt_swin-small-w7': dict(embed=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), window=7),
    'lavt_swin-base-w7': dict(lavt.BASE, window=7),
    'lavt_swin-base-w12': lavt.BASE,
    'lavt_swin-large-w7': dict(embed=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=7),
    'lavt_swin-large-w12': dict(embed=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12),
}


@pytest.fixture
def published():
    torch.manual_seed(0)
    return lavt.published_lavt()


def published_cris(name):
    """Shapes of CRIS's tensors under published names, of which some are written out here."""
    config = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / f'{name}.py')
    back = {
        'backbone.tower.': 'backbone.visual.',
        'text_encoder.tower.': 'backbone.',
        'neck.sentence_proj.': 'neck.txt_proj.',
        'neck.image5.': 'neck.f1_v_proj.',
        'neck.gate_norm.': 'neck.norm_layer.',
        'neck.image4.': 'neck.f2_v_proj.',
        'neck.merge4.': 'neck.f2_cat.',
        'neck.image3.': 'neck.f3_v_proj.',
        'neck.merge3.': 'neck.f3_cat.',
        'neck.query5.': 'neck.f4_proj5.',
        'neck.query4.': 'neck.f4_proj4.',
        'neck.query3.': 'neck.f4_proj3.',
        'neck.merge.': 'neck.aggr.',
        'neck.coordinates.': 'neck.coordconv.0.conv1.',
        'neck.out.': 'neck.coordconv.1.',
        'decode_head.decoder.': 'decoder.',
        'decode_head.projector.conv1.': 'proj.vis.1.',
        'decode_head.projector.conv2.': 'proj.vis.3.',
        'decode_head.projector.conv3.': 'proj.vis.4.',
        'decode_head.projector.sentence_proj.': 'proj.txt.',
        '.cross_attn.': '.multihead_attn.',
    }
    tensors = {}
    for ours, shape in parameter_shapes(config.model).items():
        for before, after in back.items():
            ours = ours.replace(before, after)
        tensors[f'module.{ours}'] = torch.empty(shape, device='meta')
    tensors['module.backbone.logit_scale'] = torch.tensor(1.0)
    return dict(
        epoch=50,
        cur_iou=0.7,
        best_iou=0.7,
        prec={'Pr@50': 0.8},
        state_dict=tensors,
        optimizer=dict(state={0: dict(exp_avg=torch.zeros(2))}),
        scheduler=dict(last_epoch=50),
    )


@pytest.mark.parametrize('name', CRIS)
def test_cris_is_known_by_its_size(name):
    published = published_cris(name)
    assert published['state_dict']['module.proj.txt.bias'].shape == (256 * 9 + 1,)
    converted = convert_checkpoint('cris', published)
    assert converted.model == name
    left = {'epoch', 'cur_iou', 'best_iou', 'prec', 'optimizer', 'scheduler'}
    assert set(converted.left_out) == left | {'module.backbone.logit_scale'}
    assert len(converted.state_dict) == len(published['state_dict']) - 1
    plain = {n.removeprefix('module.'): t for n, t in published['state_dict'].items()}
    assert convert_checkpoint('cris', plain).state_dict.keys() == converted.state_dict.keys()


@pytest.mark.parametrize('name', ['lavt_swin-tiny-w7', 'lavt_swin-base-w12'])
def test_lavt_is_known_by_its_size(name):
    published = lavt.published_lavt(OTHER_SIZES[name], lavt.BASE_BERT, lavt.shape_only)
    converted = convert_checkpoint('lavt', published)
    assert converted.model == name
    if name == 'lavt_swin-base-w12':
        number = sum(t.numel() for t in converted.state_dict.values() if t.dim())
        # the published counts: all parameters, less the dead gate; BERT; BN's running statistics
        statistics = sum(2 * 512 for _ in range(6))
        assert number == 118_847_866 - 2 * 1024**2 + 108_891_648 + statistics


def test_lavt_one_and_its_plain_state_dict():
    published = lavt.published_lavt_one(
        OTHER_SIZES['lavt_swin-tiny-w7'], lavt.BASE_BERT, lavt.shape_only
    )
    for given in (published, published['model']):
        assert convert_checkpoint('lavt_one', given).model == 'lavt_swin-tiny-w7'


def test_a_given_model_is_what_must_fit(published):
    converted = convert_checkpoint('lavt', published, MODEL)
    assert converted.model is None
    assert converted.state_dict.keys() == parameter_shapes(MODEL).keys()
    init_default_scope('mmseg')
    network = MODELS.build(Config(dict(model=MODEL)).model)
    network.load_state_dict(converted.state_dict, strict=True)
    deeper = lavt.our_model(bert=dict(lavt.TINY_BERT, layers=3))
    with pytest.raises(ValueError, match='LAVT checkpoint does not fit the model: 16 missing'):
        convert_checkpoint('lavt', published, deeper)


@pytest.mark.parametrize(
    'entry, name, ours',
    [
        ('model', 'backbone.layers.1.fusion.image_lang_att.f_key.0.weight', 'fusions'),
        ('model', 'backbone.layers.0.downsample.reduction.weight', 'downsample'),
        ('model', 'backbone.layers.2.res_gate.2.weight', 'gates'),
        ('model', 'classifier.bn2_3.num_batches_tracked', 'steps'),
        ('bert_model', 'encoder.layer.1.output.LayerNorm.bias', 'bert'),
    ],
)
def test_a_missing_or_misshaped_tensor_is_named_as_published(published, entry, name, ours):
    shown = name if entry == 'model' else f'bert_model.{name}'
    right = published[entry].pop(name)
    with pytest.raises(ValueError, match=f': 1 missing tensor: {re.escape(shown)}$'):
        convert_checkpoint('lavt', published, MODEL)
    published[entry][name] = torch.zeros(3, *right.shape[1:])
    shapes = f'{shown} is {(3, *right.shape[1:])}, should be {tuple(right.shape)}'
    if right.dim():
        with pytest.raises(ValueError, match=f': 1 tensor of another shape: {re.escape(shapes)}$'):
            convert_checkpoint('lavt', published, MODEL)


def test_a_convolution_with_a_larger_kernel_is_no_linear_layer(published):
    name = 'backbone.layers.1.fusion.project_mm.0.weight'
    published['model'][name] = torch.zeros(16, 16, 3)
    with pytest.raises(
        ValueError, match=re.escape(f'{name} is (16, 16, 3), should be (16, 16, 1)')
    ):
        convert_checkpoint('lavt', published, MODEL)


def test_sizes_that_nobody_has_are_refused(published):
    pattern = 'LAVT checkpoint does not fit any base model; nearest is lavt_swin-tiny-w7: .*missing'
    with pytest.raises(ValueError, match=pattern):
        convert_checkpoint('lavt', published)
    # a block less than Swin-S: the nearest is found, and the block's tensors are named
    size = dict(OTHER_SIZES['lavt_swin-small-w7'], depths=(2, 2, 17, 2))
    published = lavt.published_lavt(size, lavt.BASE_BERT, lavt.shape_only)
    pattern = 'nearest is lavt_swin-small-w7: 13 missing tensors: backbone.layers.2.blocks.17.norm1'
    with pytest.raises(ValueError, match=pattern):
        convert_checkpoint('lavt', published)
    published = published_cris('cris_r50')
    del published['state_dict']['module.neck.f2_cat.0.weight']
    state = published['state_dict']
    state['module.neck.aggr.2.weight'] = state['module.neck.aggr.1.weight']
    pattern = (
        'nearest is cris_r50: 1 missing tensor: neck.f2_cat.0.weight; '
        '1 tensor that it does not have: module.neck.aggr.2.weight'
    )
    with pytest.raises(ValueError, match=pattern):
        convert_checkpoint('cris', published)


def test_another_method_is_recognised(published):
    one, cris = lavt.published_lavt_one(), published_cris('cris_r50')
    for name, given, real in (
        ('cris', published, 'lavt'),
        ('cris', one['model'], 'lavt_one'),
        ('lavt', one, 'lavt_one'),
        ('lavt_one', published, 'lavt'),
        ('lavt', cris, 'cris'),
        ('lavt_one', cris, 'cris'),
        ('lavt_one', cris['state_dict'], 'cris'),
    ):
        with pytest.raises(
            ValueError, match=rf"^not a .* checkpoint: .*\(it is one for '{real}'\)$"
        ):
            convert_checkpoint(name, given)
    for nothing in ({}, [1], None, dict(model=1), dict(state_dict={})):
        for name in CONVERTERS:
            with pytest.raises(ValueError):
                convert_checkpoint(name, nothing)
    with pytest.raises(
        ValueError, match="no converter 'lisa'; there are cris, irn, lavt, lavt_one"
    ):
        convert_checkpoint('lisa', {})
    with pytest.raises(ValueError, match=r'backbone.norm0.weight \(no tensor\)'):
        convert_checkpoint('lavt_one', {**one['model'], 'backbone.norm0.weight': [1.0]})


def test_foreign_and_doubled_tensors_are_named():
    with pytest.raises(ValueError, match='1 unknown tensor: classifier.layer'):
        convert_checkpoint('cris', {'classifier.layer': torch.zeros(1)})
    doubled = {'proj.txt.bias': torch.zeros(1), 'module.proj.txt.bias': torch.zeros(1)}
    with pytest.raises(ValueError, match='two tensors.*sentence_proj.bias'):
        convert_checkpoint('cris', doubled)


def test_base_models_are_those_of_published_sizes():
    assert set(base_models(CONVERTERS['lavt'])) == set(OTHER_SIZES)
    assert set(base_models(CONVERTERS['cris'])) == set(CRIS)


def test_a_file_is_written_that_both_loaders_read(published, tmp_path):
    # what the published training saves
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=5e-5)
    weight.sum().backward()
    optimizer.step()
    published.update(
        args=argparse.Namespace(lr=5e-5, model='lavt', swin_type='base'),
        optimizer=optimizer.state_dict(),
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5).state_dict(),
    )
    torch.save(published, tmp_path / 'in.pth')
    target = tmp_path / 'new' / 'out.pth'
    converted = convert_file('lavt', tmp_path / 'in.pth', target, MODEL)
    assert [path.name for path in target.parent.iterdir()] == ['out.pth']
    assert {'args', 'optimizer', 'lr_scheduler'} < set(converted.left_out)
    with only_globals([]):
        read = torch.load(target, weights_only=True)
    assert read['meta']['converted_from'] == 'in.pth' and read['meta']['converted_as'] == 'lavt'
    assert read['meta']['left_out'] == converted.left_out
    init_default_scope('mmseg')
    one, two = (MODELS.build(Config(dict(model=MODEL)).model) for _ in range(2))
    load_checkpoint(one, str(target), strict=True)
    fill_model(two, target)
    for network in (one, two):
        state = network.state_dict()
        assert all(torch.equal(state[name], t) for name, t in converted.state_dict.items())


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path('ran'),))


class Settings:
    pass


def test_files_of_the_other_method(tmp_path):
    # the published scores may be NumPy's numbers; names and shapes alone are enough for the test
    published = published_cris('cris_r50')
    state = published['state_dict']
    published['state_dict'] = {n: torch.zeros(()).expand(t.shape) for n, t in state.items()}
    published.update(best_iou=np.float64(0.7), prec={'Pr@50': np.float32(0.8)})
    torch.save(published, tmp_path / 'in.pth')
    converted = convert_file('cris', tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert converted.model == 'cris_r50' and 'best_iou' in converted.left_out
    torch.save(dict(published, args=argparse.Namespace(lr=1)), tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='it holds argparse.Namespace, which'):
        convert_file('cris', tmp_path / 'in.pth', tmp_path / 'out.pth')


@pytest.mark.parametrize('name', ['lavt', 'lavt_one'])
def test_heads_that_no_shape_tells_are_compared_with_the_command_line(name):
    given = lavt.published_lavt() if name == 'lavt' else lavt.published_lavt_one()
    config = Config(dict(model=MODEL)).model
    config.backbone.fusion_heads = (8, 8, 8, 8)
    for mha, model, fits in (
        ('', MODEL, True),
        ('1-1-1-1', MODEL, True),
        ('8-8-8-8', config, True),
        ('8-8-8-8', MODEL, False),
        ('1-1-1-8', MODEL, False),
        ('', config, False),
    ):
        given['args'] = argparse.Namespace(mha=mha)
        if fits:
            assert convert_checkpoint(name, given, model)
        else:
            pattern = f'trained with --mha {mha or "1-1-1-1"}, the network has .*fusion_heads='
            with pytest.raises(ValueError, match=pattern):
                convert_checkpoint(name, given, model)
    # other settings, or none, tell nothing
    for args in (argparse.Namespace(lr=1), None):
        assert convert_checkpoint(name, dict(given, args=args), config)


def test_heads_are_compared_with_those_of_the_base_model():
    size = OTHER_SIZES['lavt_swin-tiny-w7']
    published = lavt.published_lavt(size, lavt.BASE_BERT, lavt.shape_only)
    published['args'] = argparse.Namespace(mha='8-8-8-8')
    with pytest.raises(ValueError, match=r'--mha 8-8-8-8, .* fusion_heads=\(8, 8, 8, 8\)'):
        convert_checkpoint('lavt', published)


def test_a_file_of_ours_is_recognised(published, tmp_path):
    torch.save(published, tmp_path / 'in.pth')
    convert_file('lavt', tmp_path / 'in.pth', tmp_path / 'ours.pth', MODEL)
    for name in CONVERTERS:
        with pytest.raises(ValueError, match="ours.pth: already converted, as 'lavt'"):
            convert_file(name, tmp_path / 'ours.pth', tmp_path / 'out.pth', MODEL)


def test_names_that_are_no_text_are_unknown_tensors(published):
    one = lavt.published_lavt_one()
    for name, given in (
        ('lavt', dict(published, model={**published['model'], 0: torch.zeros(1)})),
        ('lavt_one', {**one['model'], 0: torch.zeros(1)}),
        ('cris', {0: torch.zeros(1)}),
    ):
        with pytest.raises(ValueError, match='1 unknown tensor: 0$|unknown tensor: 0 '):
            convert_checkpoint(name, given)
    assert '7' in convert_checkpoint('lavt', {**published, 7: 'seven'}, MODEL).left_out


def test_cyclic_and_deep_entries_are_borne(published):
    cyclic, deep = [], torch.zeros(1)
    cyclic.append(dict(again=cyclic))
    for _ in range(100_000):
        deep = [deep]
    assert 'log' in convert_checkpoint('lavt', dict(published, log=cyclic), MODEL).left_out
    with pytest.raises(ValueError, match="nothing is known of the tensors in 'log'"):
        convert_checkpoint('lavt', dict(published, log=deep), MODEL)


def test_many_tensors_are_named_and_the_rest_counted(published, tmp_path):
    names = [name for name in published['model'] if 'relative_position_index' not in name]
    gone = [name for name in names if '.res_gate' not in name][:60]
    for name in gone:
        del published['model'][name]
    with pytest.raises(ValueError) as caught:
        convert_checkpoint('lavt', published, MODEL)
    named = str(caught.value).partition(': 60 missing tensors: ')[2]
    assert named.endswith(' and 10 more')
    assert set(named.removesuffix(' and 10 more').split(', ')) < set(gone)
    # the strict loading of our own files says it as shortly
    whole = convert_checkpoint('lavt', lavt.published_lavt(), MODEL).state_dict
    first, *others = whole
    state = {first: whole[first][:1], 'head.weight': torch.zeros(1), '0': torch.zeros(1)}
    torch.save(state, tmp_path / 'a.pth')
    init_default_scope('mmseg')
    with pytest.raises(ValueError) as caught:
        fill_model(MODELS.build(Config(dict(model=MODEL)).model), tmp_path / 'a.pth')
    said = str(caught.value)
    assert f'a.pth does not fit the network: {len(others)} missing tensors: ' in said
    assert f' and {len(others) - 50} more; ' in said and len(said) < 5000
    shape = tuple(whole[first].shape)
    assert f'1 tensor of another shape: {first} is {(1, *shape[1:])}, should be {shape}; ' in said
    assert said.endswith('2 tensors that it does not have: head.weight, 0')


def test_files_that_are_damaged_or_hold_other_things(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, target = tmp_path / 'in.pth', tmp_path / 'out.pth'
    for args in (Harmful(), Settings(), argparse.Namespace(inner=Settings())):
        torch.save(dict(published, args=args), source)
        with pytest.raises(ValueError, match='in.pth cannot be read as a checkpoint'):
            convert_file('lavt', source, target, MODEL)
    source.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match='in.pth cannot be read as a checkpoint'):
        convert_file('lavt', source, target, MODEL)
    assert not Path('ran').exists()
    torch.save(published, source)
    whole = source.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 30):
        source.write_bytes(whole[:length])
        with pytest.raises(ValueError, match='in.pth cannot be read as a checkpoint'):
            convert_file('lavt', source, target, MODEL)
    with pytest.raises(FileNotFoundError, match='none.pth'):
        convert_file('lavt', tmp_path / 'none.pth', target, MODEL)
    source.write_bytes(whole)
    with pytest.raises(ValueError, match='in.pth: .*does not fit any base model'):
        convert_file('lavt', source, target)
    with pytest.raises(ValueError, match='in.pth cannot be the file to write'):
        convert_file('lavt', source, source, MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ['in.pth'] and source.read_bytes() == whole


def test_a_full_disk_is_said(published, tmp_path, file_size_limit):
    torch.save(published, tmp_path / 'in.pth')
    limit, said = file_size_limit(20_000), f'File too large, while writing {tmp_path}/out.pth'
    with limit, pytest.raises(OSError, match=said):
        convert_file('lavt', tmp_path / 'in.pth', tmp_path / 'out.pth', MODEL)
    assert os.listdir(tmp_path) == ['in.pth']


def test_nothing_half_written_stays(published, tmp_path, monkeypatch):
    torch.save(published, tmp_path / 'in.pth')
    target = tmp_path / 'out.pth'
    target.write_text('an older one')

    def full(content, file):
        file.write(b'half')
        raise RuntimeError('no space left')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='out.pth cannot be written: no space left'):
        convert_file('lavt', tmp_path / 'in.pth', target, MODEL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in.pth', 'out.pth']
    assert target.read_text() == 'an older one'
