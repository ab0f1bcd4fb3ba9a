"""A network, data set and metric of a few lines, to run the runner without waiting for it."""

import os
from pathlib import Path

import pytest

MODULE = """
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmseg.registry import DATASETS, METRICS, MODELS


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x, y=None, mode='tensor'):
        out = self.linear(x)
        return dict(loss=(out - y).square().mean()) if mode == 'loss' else [out]


@DATASETS.register_module()
class ToyData(torch.utils.data.Dataset):
    METAINFO = metainfo = {}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(x=torch.full((2,), float(index)), y=torch.ones(1))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return dict(batches=len(results))
"""

CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['nemo_mmseg', 'toy_parts'], allow_failed_imports=False)
model = dict(type='ToyModel')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
loader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='ToyData'),
    sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='default_collate'))
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(type='ToyMetric')
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Config file of the toy, whose parts programs started by the test can import.

    Args:
        tmp_path: pytest's.
        monkeypatch: pytest's.

    Returns:
        The config file; its folder is empty but for the toy.
    """
    (tmp_path / 'toy_parts.py').write_text(MODULE)
    config = tmp_path / 'toy_config.py'
    config.write_text(CONFIG)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    return config
