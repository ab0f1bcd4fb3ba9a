"""A whole run on expressions of one target, several or none: data, bank, training, evaluation."""

import json

import pytest
import torch
from check_data import check_data
from small_runs import logged, runner_of, small_config

from nemo_mmseg.negatives.bank import NegativeBank

pytestmark = pytest.mark.slow


def test_training_with_nemo_and_evaluation_of_two_data_sets(refshapes, tmp_path):
    bank = tmp_path / 'bank.safetensors'
    cfg = small_config('cris_refshapes-clip_nemo_1xb16-4e_grefshapes-256x256', refshapes, bank)
    cfg.train_cfg.max_epochs = 1
    assert not any(report.faults for report in check_data(cfg, progress=False))
    generalized = cfg.val_dataloader.dataset
    single = dict(generalized, type='RefCOCODataset', ann_file='refshapes+/instances.json')
    single.update(split_file='refshapes+/refs(unc).p')
    cfg.val_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[generalized, single], ignore_keys=['dataset_name']
    )
    runner = runner_of(cfg, tmp_path / 'run')
    runner.train()
    refs = json.loads((refshapes / 'grefshapes' / 'grefs(unc).json').read_text())
    count = {
        split: sum(len(ref['sentences']) for ref in refs if ref['split'] == split)
        for split in ('train', 'val')
    }
    assert len(NegativeBank(bank)) == count['train']
    scores = logged(tmp_path / 'run')[-1]
    assert {'gIoU', 'cIoU', 'N-acc', 'T-acc', 'Pr@0.7', 'Pr@0.8', 'Pr@0.9'} <= set(scores)
    assert {'grefshapes/gIoU', 'refshapes+/gIoU'} <= set(scores)
    assert scores['expressions'] > count['val'] and scores['refshapes+/N-acc'] == 0
    assert list((tmp_path / 'run').glob('best_gIoU*.pth'))

    # Of no-target expressions alone, loss and gradients are finite, too.
    dataset, runner.model = runner.train_dataloader.dataset, runner.model.train()
    items = [i for i in range(len(dataset)) if not dataset.get_data_info(i)['targets'][0]]
    packed = [dataset[index] for index in items[:4]]
    samples = [one['data_samples'] for one in packed]
    assert len(samples) == 4 and not any(one.gt_sem_seg.data.any() for one in samples)
    batch = dict(inputs=[one['inputs'] for one in packed], data_samples=samples)
    losses = runner.model(**runner.model.data_preprocessor(batch, training=True), mode='loss')
    total = sum(value for key, value in losses.items() if 'loss' in key)
    runner.model.zero_grad()
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in runner.model.parameters())
