"""Response maps of a whole split: from the network's own output, resumed, by several processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS, MODELS, TASK_UTILS
from small_runs import run_tool

from nemo_mmseg.pseudo_labels import make_maps
from nemo_mmseg.pseudo_labels.make_maps import make_response_maps
from nemo_mmseg.pseudo_labels.response_maps import ResponseMapError, ResponseMaps

ROOT = Path(__file__).resolve().parents[2]
NAME = 'gradcam_refshapes-clip_refshapes-plus-256x256'
TOOL = 'pseudo_labels/make_response_maps.py'
MEAN = dict(type='MeanOfMaps')


@pytest.fixture
def cfg(refshapes):
    cfg = Config.fromfile(ROOT / f'configs/zero_shot/{NAME}.py')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f'{refshapes}/'
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (128, 128)
    return cfg


@pytest.fixture
def build(cfg):
    def make(**settings):
        pipeline = [
            one for one in cfg.test_dataloader.dataset.pipeline if 'Referent' not in one.type
        ]
        settings = dict(split='train', pipeline=pipeline) | settings
        dataset = DATASETS.build({**cfg.test_dataloader.dataset, **settings})
        return MODELS.build(cfg.model), dataset

    return make


def run_maps(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        run_tool(TOOL, *arguments, '--workers', 0)
    return end.value.code


def small_blocks(monkeypatch):
    monkeypatch.setattr(make_maps, 'BLOCK_SIZE', 5)


@pytest.mark.parametrize('selection', ['prms', 'mean'])
def test_maps_are_those_of_the_network(build, cfg, tmp_path, monkeypatch, selection):
    small_blocks(monkeypatch)
    chosen = cfg.response_maps.selection if selection == 'prms' else MEAN
    model, dataset = build()
    maps = make_response_maps(
        model, dataset, tmp_path / 'maps', chosen, batch_size=2, num_workers=0, progress=False
    )
    chooser = TASK_UTILS.build(chosen)
    seen, kept = [], []
    for i in range(len(dataset)):
        data = model.data_preprocessor(pseudo_collate([dataset[i]]), False)
        (sample,) = data['data_samples']
        with torch.no_grad():
            scores = model.encode_decode(data['inputs'], [sample])[:, 0]
        for ref_id in dict.fromkeys(sample.ref_ids):
            rows = [row for row, other in enumerate(sample.ref_ids) if other == ref_id]
            one = chooser(
                scores[rows], data['inputs'], torch.zeros(len(rows), dtype=torch.long),
                [sample.expressions[row] for row in rows], [list(range(len(rows)))],
            )  # fmt: skip
            expected, place = one.scores[0].numpy(), one.chosen[0]
            record = maps.record(ref_id)
            np.testing.assert_allclose(record.scores, expected, rtol=2e-3, atol=2e-3)
            assert record.input_shape == (128, 128)
            assert record.sent_id == (-1 if place < 0 else sample.sent_ids[rows[place]])
            kept.append(place)
            seen.append(ref_id)
    assert len(maps) == len(seen) and set(maps.ref_ids.tolist()) == set(seen)
    assert len(set(kept)) > 1 or selection == 'mean'
    assert os.listdir(tmp_path) == ['maps'], 'no part is left'


def test_a_killed_run_goes_on(build, tmp_path, monkeypatch):
    small_blocks(monkeypatch)
    model, dataset = build()
    real, calls = make_maps.respond, []

    def respond(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args)

    settings = dict(selection=MEAN, batch_size=2, num_workers=0, progress=False)
    monkeypatch.setattr(make_maps, 'respond', respond)
    with pytest.raises(KeyboardInterrupt):
        make_response_maps(model, dataset, tmp_path / 'maps', **settings)
    assert not (tmp_path / 'maps').exists()
    # 12 images: blocks of 5, 5 and 2, in 3, 3 and 1 batches. One block was done.
    calls[:] = [0] * 5
    resumed = make_response_maps(model, dataset, tmp_path / 'maps', **settings)
    assert len(calls) - 5 == 4
    monkeypatch.setattr(make_maps, 'respond', real)
    whole = make_response_maps(model, dataset, tmp_path / 'whole', **settings)
    assert (tmp_path / 'maps').read_bytes() == (tmp_path / 'whole').read_bytes()
    assert resumed.ref_ids.tolist() == whole.ref_ids.tolist()


def test_other_settings_are_refused(build, tmp_path, cfg):
    model, dataset = build()
    settings = dict(selection=MEAN, num_workers=0, progress=False, config='a')
    path = tmp_path / 'maps'
    checkpoint = dict(name='stage1.pth', sha256='a' * 64)
    make_response_maps(model, dataset, path, checkpoint=checkpoint, **settings)
    make_response_maps(None, dataset, path, checkpoint=checkpoint, **settings)  # nothing to do
    other = dict(checkpoint, name='other.pth', sha256='b' * 64)
    with pytest.raises(ResponseMapError, match=r'checkpoint stage1\.pth .*, not of other\.pth'):
        make_response_maps(model, dataset, path, checkpoint=other, **settings)
    with pytest.raises(ResponseMapError, match="made with selection={'type': 'MeanOfMaps'}"):
        changed = dict(settings, selection=cfg.response_maps.selection.to_dict())
        make_response_maps(model, dataset, path, checkpoint=checkpoint, **changed)
    with pytest.raises(ResponseMapError, match="made with config='a', this run asks for 'b'"):
        changed = dict(settings, config='b')
        make_response_maps(model, dataset, path, checkpoint=checkpoint, **changed)
    _, val = build(split='val')
    with pytest.raises(ResponseMapError, match="split 'train', not of .* split 'val'"):
        make_response_maps(model, val, path, checkpoint=checkpoint, **settings)


def test_items_must_hold_whole_references_and_stretched_images(build, tmp_path, cfg):
    model, dataset = build(group_by='expression')
    with pytest.raises(ValueError, match="group_by='image' or 'reference', not 'expression'"):
        make_response_maps(model, dataset, tmp_path / 'maps', MEAN)
    pipeline = [
        dict(type='LoadReferringImage'),
        dict(type='Letterbox', size=(128, 160)),
        dict(type='PackReferringInputs'),
    ]
    model, dataset = build(pipeline=pipeline)
    with pytest.raises(ValueError, match=r'\.jpg: response maps need images that are stretched'):
        make_response_maps(model, dataset, tmp_path / 'maps', MEAN, num_workers=0)


def test_the_tool(cfg, refshapes, tmp_path, capsys):
    cfg.dump(tmp_path / 'config.py')
    out = tmp_path / 'maps.safetensors'
    assert run_maps(tmp_path / 'config.py', '--out', out) == 0
    maps = ResponseMaps(out)
    assert f'{out}: {len(maps)} response maps' in capsys.readouterr().out
    assert maps.metadata['split'] == 'train' and maps.metadata['selection']['type'] == 'PRMS'
    assert maps.metadata['checkpoint']['name'] == 'none'
    assert maps.map_of(int(maps.ref_ids[0])).shape == (4, 4)
    # the same again has nothing to do, and another selection another file
    assert run_maps(tmp_path / 'config.py', '--out', out) == 0
    assert run_maps(tmp_path / 'config.py', '--out', out, '--selection', 'mean') == 1
    assert 'make_response_maps: ' in (said := capsys.readouterr().err) and 'MeanOfMaps' in said


def test_the_tool_with_the_first_stage_of_tris(cfg, tmp_path, capsys):
    models = ROOT / 'configs/_base_/models'
    cfg.model = Config.fromfile(models / 'tris-stage1_refshapes-clip.py').model
    cfg.dump(tmp_path / 'config.py')
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.eval()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'stage1.pth')
    out = tmp_path / 'maps.safetensors'
    assert run_maps(tmp_path / 'config.py', tmp_path / 'stage1.pth', '--out', out) == 0
    maps = ResponseMaps(out)
    assert maps.metadata['checkpoint']['name'] == 'stage1.pth'
    ref_id = int(maps.ref_ids[0])
    record = maps.record(ref_id)

    steps = [one for one in cfg.test_dataloader.dataset.pipeline if 'Referent' not in one.type]
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'split': 'train', 'pipeline': steps})
    data = model.data_preprocessor(pseudo_collate([dataset[0]]), False)
    (sample,) = data['data_samples']
    with torch.no_grad():
        scores = model.encode_decode(data['inputs'], [sample])[:, 0].numpy()
    expected = scores[sample.sent_ids.index(record.sent_id)]
    assert sample.ref_ids[sample.sent_ids.index(record.sent_id)] == ref_id
    np.testing.assert_allclose(record.scores, expected, rtol=2e-3, atol=2e-3 * abs(expected).max())

    # the second stage is another network
    other = MODELS.build(Config.fromfile(models / 'tris-stage2_refshapes-clip.py').model)
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'stage2.pth')
    assert run_maps(tmp_path / 'config.py', tmp_path / 'stage2.pth', '--out', tmp_path / 'x') == 1
    assert 'stage2.pth does not fit the network' in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_make_the_same_file(cfg, tmp_path):
    cfg.dump(tmp_path / 'config.py')
    arguments = [ROOT / 'tools' / TOOL, tmp_path / 'config.py', '--workers', '0']
    for name, ranks in (('one', 1), ('two', 2)):
        out = tmp_path / name
        script = 'import nemo_mmseg.pseudo_labels.make_maps as m; m.BLOCK_SIZE = 5; '
        script += 'import runpy, sys; sys.argv = sys.argv[1:]; '
        script += 'runpy.run_path(sys.argv[0], run_name="__main__")'
        running = [
            subprocess.Popen(
                [sys.executable, '-c', script, *map(str, arguments), '--out', str(out)],
                env=dict(os.environ, RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK='0'),
            )
            for rank in range(ranks)
        ]
        assert [process.wait(timeout=200) for process in running] == [0] * ranks
    assert (tmp_path / 'one').read_bytes() == (tmp_path / 'two').read_bytes()
    assert not list(tmp_path.glob('*.work-*'))


@pytest.mark.slow
def test_the_network_is_evaluated_without_a_checkpoint(cfg, tmp_path, refshapes):
    protocol = dict(type='TRISProtocol', threshold=0.5)
    selected = dict(
        type='SelectedMapProtocol',
        selection=cfg.response_maps.selection.to_dict(),
        protocol=protocol,
    )
    found = {}
    for name, chosen in dict(single=protocol, prms=selected).items():
        cfg.model.test_cfg = dict(protocol=chosen)
        cfg.dump(tmp_path / 'config.py')
        out = tmp_path / name
        run_tool('test.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'run', '--out', out)
        metrics = (out / 'metrics.json').read_text()
        found[name] = metrics
        for measure in ('PointIt', 'PointM', 'Acc_box_plain', 'oIoU', 'mIoU'):
            assert f'"{measure}"' in metrics
        assert list((out / 'masks').glob('*.png'))
    assert found['single'] != found['prms']
    shutil.rmtree(tmp_path / 'run')
    with pytest.raises(ValueError, match='ReferringSegmentor needs a checkpoint'):
        run_tool(
            'test.py', 'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256',
            '--work-dir', tmp_path / 'run', '--cfg-options',
            f'test_dataloader.dataset.data_root={refshapes}/', 'test_dataloader.num_workers=0',
        )  # fmt: skip


@pytest.mark.slow
def test_processes_share_the_images_of_a_network_without_parameters(cfg, tmp_path):
    cfg.test_dataloader.batch_size = 1
    cfg.dump(tmp_path / 'config.py')
    two = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    for name, launch, more in (('one', [], []), ('two', two, ['--launcher', 'pytorch'])):
        subprocess.run(
            [sys.executable, *launch, ROOT / 'tools/test.py', 'config.py', '--out', name,
             '--work-dir', f'{name}_work', *more],
            cwd=tmp_path, check=True, capture_output=True, timeout=280,
        )  # fmt: skip
    one, two = (json.loads((tmp_path / n / 'metrics.json').read_text()) for n in ('one', 'two'))
    assert one == pytest.approx(two) and one['images'] == 3
