"""Stores a network's kernels with the channels last."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Turn the network to the channels-last memory format before a run.

    Convolutions follow the format of their kernels, so the inputs need no change. It computes the
    same, faster: under bfloat16 on a CPU by several times.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the weights in place."""
        runner.model.to(memory_format=torch.channels_last)
