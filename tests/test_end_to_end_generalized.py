"""Whole runs on expressions of several objects or nothing: data, bank, training, evaluation."""

import json
from pathlib import Path

import pytest
import torch
from check_data import check_data
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.refshapes.write import make_refshapes

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'refshapes'
NEMO = CONFIGS / 'cris_refshapes-clip_nemo_1xb16-4e_grefshapes-256x256.py'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('grefshapes')
    sizes = dict(train=12, val=3, testA=1, testB=1)
    for flavour in ('grefshapes', 'refshapes+'):
        make_refshapes(str(root), flavour, sizes, seed=5, workers=1)
    return root


def load(data, work_dir):
    cfg = Config.fromfile(NEMO)
    cfg.work_dir = str(work_dir)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{data}/'
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        for transform in loader.dataset.pipeline:
            if transform['type'] == 'Resize':
                transform['scale'] = (64, 64)
    mosaic = cfg.train_dataloader.dataset.pipeline[1]
    mosaic.update(size=(64, 64), mined_prob=0.7)
    mosaic['plain'][-1]['scale'] = (64, 64)
    mosaic['bank']['path'] = str(data / 'bank.safetensors')
    cfg.train_cfg.update(max_epochs=1)
    cfg.default_hooks.visualization.update(draw=False)
    cfg.log_level = 'WARNING'
    cfg.experiment_name = cfg.visualizer.name = Path(work_dir).parent.name
    DefaultScope._instance_dict.clear()
    return cfg


def test_training_with_nemo_and_evaluation_of_two_data_sets(data, tmp_path):
    cfg = load(data, tmp_path / 'run')
    assert not any(report.errors for report in check_data(cfg, progress=False))
    generalized = cfg.val_dataloader.dataset
    single = dict(generalized, type='RefCOCODataset', ann_file='refshapes+/instances.json')
    single.update(split_file='refshapes+/refs(unc).p')
    cfg.val_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[generalized, single], ignore_keys=['dataset_name']
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    refs = json.loads((data / 'grefshapes' / 'grefs(unc).json').read_text())
    count = {
        split: sum(len(ref['sentences']) for ref in refs if ref['split'] == split)
        for split in ('train', 'val')
    }
    assert len(NegativeBank(data / 'bank.safetensors')) == count['train']
    lines = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    scores = [json.loads(line) for line in lines][-1]
    assert {'gIoU', 'cIoU', 'N-acc', 'T-acc', 'Pr@0.7', 'Pr@0.8', 'Pr@0.9'} <= set(scores)
    assert {'grefshapes/gIoU', 'refshapes+/gIoU'} <= set(scores)
    assert scores['expressions'] > count['val'] and scores['refshapes+/N-acc'] == 0
    assert list((tmp_path / 'run').glob('best_gIoU*.pth'))


def test_the_loss_of_expressions_of_nothing_is_finite(data, tmp_path):
    cfg = load(data, tmp_path / 'run')
    cfg.train_dataloader.dataset.pipeline[1].update(mined_prob=0.0, random_prob=1.0)
    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    dataset = runner.build_dataloader(cfg.train_dataloader).dataset
    nothing = [i for i in range(len(dataset)) if not dataset.get_data_info(i)['targets'][0]]
    batch = [dataset[index] for index in nothing[:4]]
    samples = [one['data_samples'] for one in batch]
    assert len(samples) == 4 and not any(one.gt_sem_seg.data.any() for one in samples)
    batch = dict(inputs=[one['inputs'] for one in batch], data_samples=samples)
    batch = runner.model.data_preprocessor(batch, training=True)
    losses = runner.model(**batch, mode='loss')
    total = sum(value for key, value in losses.items() if 'loss' in key)
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in runner.model.parameters())
