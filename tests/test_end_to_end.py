"""Whole runs by config: data, bank, training with NeMo, evaluation, resuming, the demo."""

import json
import sys
from pathlib import Path

import demo
import pytest
from small_runs import NEMO, assert_same_weights, logged, run_tool, small_config, train

pytestmark = pytest.mark.slow


@pytest.fixture
def cfg(refshapes, refshapes_bank):
    cfg = small_config(NEMO, refshapes, refshapes_bank)
    # Dropout makes the weights depend on what the network itself draws.
    cfg.model.decode_head.dropout = 0.1
    cfg.custom_hooks.append(dict(type='RecordSamples'))
    return cfg


def test_training_mines_learns_is_evaluated_and_resumes_from_an_epoch(cfg, tmp_path):
    cfg.train_dataloader.dataset.pipeline[1].bank.path = str(tmp_path / 'bank.safetensors')
    cfg.train_cfg.update(max_epochs=2, val_interval=1)
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.default_hooks.logger.interval = 1
    cfg.visualizer.vis_backends.append(dict(type='TensorboardVisBackend'))
    samples, end = train(cfg, tmp_path / 'unbroken')
    assert (tmp_path / 'bank.safetensors').is_file()
    assert len({digest for _, digest in samples}) > len(samples) / 2
    lines = logged(tmp_path / 'unbroken')
    scores = [line for line in lines if 'oIoU' in line]
    assert len(scores) == 2 and all(0 <= one['oIoU'] <= 100 for one in scores)
    assert scores[0]['expressions'] == scores[1]['expressions'] > 9
    assert any(line.get('mosaic/mined') for line in lines)
    assert list((tmp_path / 'unbroken').glob('*/vis_data/events.out.tfevents.*'))

    resumed, weights = train(cfg, tmp_path / 'resumed', tmp_path / 'unbroken' / 'epoch_1.pth')
    assert 0 < len(resumed) < len(samples) and resumed == samples[-len(resumed) :]
    assert_same_weights(weights, end)


def test_masked_training_on_mosaics_resumes_with_the_same_noise(
    refshapes, refshapes_bank, tmp_path
):
    cfg = small_config(NEMO.replace('nemo', 'nemo-maskris'), refshapes, refshapes_bank)
    cfg.custom_hooks.append(dict(type='RecordSamples'))
    cfg.train_dataloader.sampler.type = 'InfiniteReferringSampler'
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=100)
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2, save_best=None)
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor.by_epoch = False
    _, end = train(cfg, tmp_path / 'unbroken')
    lines = [line for line in logged(tmp_path / 'unbroken') if 'loss' in line]
    assert len(lines) == 4
    for line in lines:
        assert line['loss'] == pytest.approx(line['loss_ce'] + line['loss_masked'], rel=1e-5)
        assert line['loss_masked'] > 0
    _, weights = train(cfg, tmp_path / 'resumed', tmp_path / 'unbroken' / 'iter_2.pth')
    assert_same_weights(weights, end)


def test_a_run_resumed_from_any_iteration_continues_as_the_unbroken_one(cfg, tmp_path):
    """The runs have as many workers as it happens."""
    cfg.train_dataloader.sampler.type = 'InfiniteReferringSampler'
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=12, val_interval=100)
    cfg.param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[9], gamma=0.1)]
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1, max_keep_ckpts=-1)
    cfg.default_hooks.checkpoint.save_best = None
    cfg.log_processor.by_epoch = False
    samples, end = train(cfg, tmp_path / 'unbroken')
    assert [i for i, _ in samples] == [i for i in range(12) for _ in range(4)]
    for start, workers in ((1, 2), (8, 0), (11, 2)):  # in the first epoch, and in the second
        cfg.train_dataloader.num_workers = workers
        checkpoint = tmp_path / 'unbroken' / f'iter_{start}.pth'
        resumed, weights = train(cfg, tmp_path / f'resumed_{start}', checkpoint)
        assert resumed == samples[4 * start :]
        assert_same_weights(weights, end)


def test_the_demo_runs_from_data_to_page(tmp_path, monkeypatch, capsys):
    """`make demo` in small: every tool on the way, and a page that needs no other file."""
    monkeypatch.setattr(demo, 'run_tool', run_tool)
    monkeypatch.chdir(tmp_path)
    arguments = ['--data', 'data', '--work-dir', 'demo', '--train-images', '16', '--test-images']
    arguments += ['2', '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    monkeypatch.setattr(sys, 'argv', ['demo.py', *arguments])
    demo.demo(demo.parse_args())
    for split in ('val', 'testA', 'testB'):
        metrics = json.loads(Path('demo', split, 'metrics.json').read_text())
        assert 0 <= metrics['oIoU'] <= 100 and metrics['expressions'] >= 6
    page = Path('demo', 'index.html').read_text()
    for title in ('Scores', 'Training', 'Mosaics', 'The band', 'Predictions'):
        assert f'<h2>{title}</h2>' in page
    assert page.count('src="data:image/') >= 8 and 'http' not in page.replace('http-equiv', '')
    printed = capsys.readouterr().out
    assert 'also_true' in printed and 'demo: ' in printed
    assert not list(tmp_path.rglob('*.tmp'))
