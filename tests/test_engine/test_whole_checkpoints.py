"""Checkpoints of a run are there whole or not at all, also when the disk is full."""

import os
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from small_runs import weights

from nemo_mmseg.utils.config import find_config

TRAIN = Path(__file__).resolve().parents[2] / 'tools' / 'train.py'


class Big(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(400, 400)

    def forward(self, x, mode='tensor'):
        return dict(loss=self.linear(x).mean())


def run(folder: Path, hook: dict) -> None:
    Runner(
        Big(),
        str(folder),
        train_dataloader=dict(
            batch_size=1,
            num_workers=0,
            dataset=[dict(x=torch.ones(400))],
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=hook),
        default_scope='mmseg',
        experiment_name=folder.name,
    ).train()


def test_a_full_disk_leaves_no_part_and_names_the_checkpoint(tmp_path, file_size_limit):
    hook = Config.fromfile(find_config('cris_r50_8xb8-50e_refcoco-416x416')).default_hooks
    hook = dict(hook.checkpoint, save_best=None)
    with (
        file_size_limit(300_000),
        pytest.raises(OSError, match=r'while writing .*full/epoch_1\.pth'),
    ):
        run(tmp_path / 'full', hook)
    assert [name for name in os.listdir(tmp_path / 'full') if '.pth' in name] == []
    run(tmp_path / 'whole', hook)
    for epoch in (1, 2):
        saved = weights(tmp_path / 'whole' / f'epoch_{epoch}.pth')
        assert saved['linear.weight'].shape == (400, 400)


@pytest.mark.parametrize(
    'hooks, backend',
    [
        ({}, 'whole_file'),
        (dict(checkpoint=dict(type='CheckpointHook', interval=3)), 'whole_file'),
        (dict(checkpoint=dict(type='CheckpointHook', backend_args=dict(backend='s'))), 's'),
        (dict(checkpoint=dict(type='CheckpointHook', out_dir='s3://a')), None),
        (dict(checkpoint=None), None),
    ],
)
def test_the_tool_does_it_for_any_config(hooks, backend):
    cfg = Config(dict(default_hooks=hooks))
    runpy.run_path(str(TRAIN), run_name='tool')['write_whole_checkpoints'](cfg)
    hook = cfg.default_hooks.checkpoint or {}
    assert (hook.get('backend_args') or {}).get('backend') == backend
