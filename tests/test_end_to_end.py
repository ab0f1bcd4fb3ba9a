"""Whole runs by config: data, bank, training with NeMo, evaluation, resuming."""

import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from nemo_mmseg.refshapes.write import make_refshapes

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'refshapes'
NEMO = CONFIGS / 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256.py'

pytestmark = pytest.mark.slow


@HOOKS.register_module()
class RecordSamples(Hook):
    """Keeps a digest of every training batch: what a resumed run must draw again."""

    batches: list[tuple[int, str]] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        digest = hashlib.sha256()
        for image, sample in zip(data_batch['inputs'], data_batch['data_samples']):
            digest.update(image.numpy().tobytes())
            digest.update(sample.gt_sem_seg.data.numpy().tobytes())
            digest.update(repr((sample.expressions, sample.get('mosaic'))).encode())
        self.batches.append((runner.iter, digest.hexdigest()))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('refshapes')
    make_refshapes(str(root), 'refshapes+', dict(train=12, val=3, testA=2, testB=2), seed=5)
    return root


@pytest.fixture
def cfg(data, tmp_path):
    cfg = Config.fromfile(NEMO)
    cfg.work_dir = str(tmp_path / 'run')
    size = (64, 64)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{data}/'
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        for transform in loader.dataset.pipeline:
            if transform['type'] == 'Resize':
                transform['scale'] = size
    mosaic = cfg.train_dataloader.dataset.pipeline[1]
    mosaic['size'] = size
    mosaic['plain'][-1]['scale'] = size
    mosaic['bank']['path'] = str(data / 'bank.safetensors')
    # Dropout makes the weights depend on what the network itself draws.
    cfg.model.decode_head.dropout = 0.1
    cfg.train_cfg.update(max_epochs=3, val_interval=3)
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=-1)
    cfg.default_hooks.visualization.update(draw=False)
    cfg.custom_hooks.append(dict(type='RecordSamples'))
    cfg.log_level = 'WARNING'
    return cfg


def train(cfg, work_dir, resume=None, **changes):
    """Run a training; returns the digests of its batches and its final weights."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(changes)
    if resume is not None:
        cfg.resume, cfg.load_from = True, str(resume)
    RecordSamples.batches = []
    # One process runs many experiments here; each needs names of its own.
    cfg.experiment_name = f'{Path(work_dir).parent.name}_{Path(work_dir).name}'
    cfg.visualizer.name = cfg.experiment_name  # MMEngine gives back one whose name it knows
    DefaultScope._instance_dict.clear()
    runner = Runner.from_cfg(cfg)
    runner.train()
    return list(RecordSamples.batches), runner.model.state_dict()


def assert_same_weights(one, two):
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, msg=name)


def test_training_mines_learns_and_is_evaluated(cfg, data, tmp_path):
    batches, _ = train(cfg, tmp_path / 'run', **{'train_cfg.val_interval': 1})
    assert (data / 'bank.safetensors').is_file()
    scalars = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    scalars = [json.loads(line) for line in scalars]
    scores = [s for s in scalars if 'oIoU' in s]
    assert len(scores) == 3 and all(0 <= s['oIoU'] <= 100 for s in scores)
    assert {s['expressions'] for s in scores} == {scores[0]['expressions']}
    assert (tmp_path / 'run' / 'epoch_3.pth').is_file()
    assert len({digest for _, digest in batches}) == len(batches)


def test_a_run_resumed_from_an_epoch_continues_as_the_unbroken_one(cfg, tmp_path):
    batches, weights = train(cfg, tmp_path / 'unbroken')
    again, same = train(cfg, tmp_path / 'again')
    assert again == batches
    assert_same_weights(same, weights)
    resumed, end = train(cfg, tmp_path / 'resumed', tmp_path / 'unbroken' / 'epoch_1.pth')
    per_epoch = len(batches) // 3
    assert resumed == batches[per_epoch:]
    assert_same_weights(end, weights)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_run_resumed_from_any_iteration_continues_as_the_unbroken_one(cfg, tmp_path, workers):
    cfg.train_dataloader.update(num_workers=workers)
    cfg.train_dataloader.sampler.type = 'InfiniteReferringSampler'
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=14, val_interval=100)
    cfg.param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[9], gamma=0.1)]
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1, save_best=None)
    cfg.log_processor.by_epoch = False
    batches, weights = train(cfg, tmp_path / 'unbroken')
    assert [i for i, _ in batches] == list(range(14))
    for start in (1, 8, 13):
        checkpoint = tmp_path / 'unbroken' / f'iter_{start}.pth'
        resumed, end = train(cfg, tmp_path / f'resumed_{start}', checkpoint)
        assert resumed == batches[start:]
        assert_same_weights(end, weights)


def test_tensorboard_by_config(cfg, tmp_path):
    pytest.importorskip('tensorboard')
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    cfg.visualizer.vis_backends = backends
    cfg.default_hooks.logger.interval = 1
    train(cfg, tmp_path / 'run', **{'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((tmp_path / 'run').glob('*/vis_data'))))
    events.Reload()
    assert {'loss', 'oIoU', 'mosaic/mined'} <= set(events.Tags()['scalars'])


def test_the_demo_runs_from_data_to_page(tmp_path):
    """`make demo` in small: every tool on the way, and a page that needs no other file."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, str(root / 'tools' / 'demo.py')]
    command += ['--data', str(tmp_path / 'data'), '--work-dir', str(tmp_path / 'demo')]
    command += ['--train-images', '24', '--test-images', '3', '--cfg-options']
    command += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for split in ('val', 'testA', 'testB'):
        metrics = json.loads((tmp_path / 'demo' / split / 'metrics.json').read_text())
        assert 0 <= metrics['oIoU'] <= 100 and metrics['expressions'] >= 9
    page = (tmp_path / 'demo' / 'index.html').read_text()
    for title in ('Scores', 'Training', 'Mosaics', 'The band', 'Predictions'):
        assert f'<h2>{title}</h2>' in page
    assert page.count('src="data:image/') >= 8 and 'http' not in page.replace('http-equiv', '')
    assert 'also_true' in done.stdout and 'demo: ' in done.stdout
    assert not list(tmp_path.rglob('*.tmp'))
