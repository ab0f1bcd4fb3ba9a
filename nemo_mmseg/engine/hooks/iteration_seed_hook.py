"""Make what a network draws while training a function of the iteration."""

from __future__ import annotations

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed torch before each training iteration from (seed of the run, iteration, rank).

    Dropout then draws the same in a resumed run as in the unbroken one. The samples do not need
    this: they are functions of (seed, epoch, index).
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Seed the generators of the CPU and of the devices."""
        # Distinct large factors keep the three numbers from cancelling one another.
        seed = runner.seed * 1_000_003 + runner.iter * 10_007 + get_rank()
        torch.manual_seed(seed % 2**63)
