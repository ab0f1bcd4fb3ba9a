"""Whole runs of TRIS's stages: what they read, log and keep."""

import math

import pytest
from small_runs import logged, runner_of, small_config, weights

from nemo_mmseg.datasets.transforms.loading import LoadReferentMask

pytestmark = pytest.mark.slow
STAGE1 = 'tris-stage1_refshapes-clip_1xb16-4e_refshapes-plus-256x256'
STAGE2 = 'tris-stage2_refshapes-clip_1xb16-6e_refshapes-plus-256x256'


def small_tris(name, data, tmp_path):
    cfg = small_config(name, data, tmp_path / 'no-bank')
    cfg.train_cfg.max_epochs = 1
    cfg.train_dataloader.batch_size = 8
    return cfg


def test_the_first_stage_learns_without_a_mask(refshapes, tmp_path, monkeypatch):
    cfg = small_tris(STAGE1, refshapes, tmp_path)
    runner = runner_of(cfg, tmp_path / 'run')
    transform, trained = LoadReferentMask.transform, []
    monkeypatch.setattr(
        LoadReferentMask,
        'transform',
        lambda self, results: trained.append(runner.model.training) or transform(self, results),
    )
    runner.train()
    assert trained and not any(trained), 'masks are read for evaluation alone'
    steps = [one for one in logged(tmp_path / 'run') if 'loss' in one]
    scores = logged(tmp_path / 'run')[-1]
    parts = ('loss_cls', 'loss_calibration', 'loss_calibration_negative')
    for one in steps:
        assert one['loss'] == pytest.approx(sum(one[part] for part in parts), rel=1e-3)
        assert all(math.isfinite(one[part]) for part in parts)
        assert 0 <= one['train_area'] <= 100
    assert 0 < scores['mIoU'] < 100
    kept = weights(tmp_path / 'run' / 'epoch_1.pth')
    assert not any('aux_losses' in name for name in kept)
    assert kept['decode_head.logit_scale'].exp() == pytest.approx(1 / 0.07)


def test_the_second_stage_learns_the_masks_of_a_file(refshapes, tmp_path):
    cfg = small_tris(STAGE2, refshapes, tmp_path)
    assert 'pseudo_masks' in cfg.train_dataloader.dataset.ann_file
    cfg.train_dataloader.dataset.ann_file = cfg.val_dataloader.dataset.ann_file
    runner_of(cfg, tmp_path / 'run').train()
    step = next(one for one in logged(tmp_path / 'run') if 'loss' in one)
    parts = ['loss_mask', 'loss_side1', 'loss_side2', 'loss_side3']
    assert step['loss'] == pytest.approx(sum(step[part] for part in parts), rel=1e-3)
    # untrained outputs: each near the loss of a coin
    assert all(0.2 < step[part] < 1.5 for part in parts)
    assert 'mIoU' in logged(tmp_path / 'run')[-1]


def test_the_same_sample_has_the_same_negatives(refshapes, tmp_path):
    cfg = small_tris(STAGE1, refshapes, tmp_path)
    seen = []
    for workers in (0, 2):
        cfg.train_dataloader.num_workers = workers
        loader = runner_of(cfg, tmp_path / str(workers)).train_dataloader
        seen.append(
            [
                (sample.expressions, sample.negative_expressions)
                for batch in loader
                for sample in batch['data_samples']
            ]
        )
    assert seen[0] == seen[1] and len(seen[0]) > 12
    for expressions, negatives in seen[0]:
        assert len(negatives) == len(expressions) == 1 and len(negatives[0]) == 3
        assert expressions[0] not in negatives[0]
