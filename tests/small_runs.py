"""What whole runs share: shipped configs made small, and runs of them in this process.

Imports are most of what a short run costs, so that tools run here, too.
"""

import copy
import hashlib
import json
import os
import runpy
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from nemo_mmseg.compat import mmengine_globals
from nemo_mmseg.utils.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'refshapes'
NEMO = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256'
SIZE = (64, 64)


def record(epoch: int, iteration: int, image: torch.Tensor, sample) -> dict:
    """What a training sample is, with a digest of what the network sees of it."""
    digest = hashlib.sha256(image.numpy().tobytes())
    digest.update(sample.gt_sem_seg.data.numpy().tobytes())
    digest.update(repr((sample.expressions, sample.get('mosaic'))).encode())
    meta = {key: sample.get(key) for key in ('dataset_name', 'img_path', 'sent_ids', 'mosaic')}
    return dict(meta, epoch=epoch, iteration=iteration, digest=digest.hexdigest())


@HOOKS.register_module()
class RecordSamples(Hook):
    """Keeps the records of the samples of the last run."""

    records: list[dict] = []

    def before_run(self, runner):
        self.records.clear()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for image, sample in zip(data_batch['inputs'], data_batch['data_samples']):
            self.records.append(record(runner.epoch, runner.iter, image, sample))


def small_config(name: str, data: Path, bank: Path, **changes) -> Config:
    """A shipped config of RefShapes on small images, without worker processes.

    Args:
        name: Of a file in configs/refshapes.
        data: Root of RefShapes.
        bank: Where NeMo's bank lies, or is written.
        changes: Merged into the config.
    """
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{data}/'
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        for transform in loader.dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = SIZE
            elif transform.type == 'NeMoMosaic':
                transform.size = transform.transforms[-1].scale = SIZE
                transform.bank.path = str(bank)
    cfg.default_hooks.visualization.draw = False
    cfg.log_level = 'WARNING'
    cfg.merge_from_dict(changes)
    return cfg


def runner_of(cfg: Config, work_dir: Path, resume: Path | None = None) -> Runner:
    """A runner in a process that has many: their names differ."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = cfg.visualizer.name = '_'.join(Path(work_dir).parts[-2:])
    if resume is not None:
        cfg.resume, cfg.load_from = True, str(resume)
    DefaultScope._instance_dict.clear()
    return Runner.from_cfg(cfg)


def train(cfg: Config, work_dir: Path, resume: Path | None = None) -> tuple[list, dict]:
    """Train; the number and the digest of each sample, and the weights at the end."""
    runner = runner_of(cfg, work_dir, resume)
    runner.train()
    samples = [(one['iteration'], one['digest']) for one in RecordSamples.records]
    return samples, runner.model.state_dict()


def run_tool(name: str, *arguments) -> None:
    """Run a program of tools/ in this process."""
    DefaultScope._instance_dict.clear()
    path = ROOT / 'tools' / name
    with (
        patch.object(sys, 'argv', [str(path), *map(str, arguments)]),
        patch.dict(os.environ, LOCAL_RANK='0'),
    ):
        runpy.run_path(str(path), run_name='__main__')


def logged(work_dir: Path) -> list[dict]:
    """What a run logged, in order."""
    (file,) = Path(work_dir).glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    return read_checkpoint(checkpoint, allow=mmengine_globals())['state_dict']


def assert_same_weights(one: dict, two: dict) -> None:
    """Bit by bit."""
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, msg=name)
