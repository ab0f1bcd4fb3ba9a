"""Store a network's kernels with the channels last."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Convert the network to the channels-last memory format before a run.

    Convolutions follow the format of their kernels, so the inputs need no change. The results are
    the same. Under bfloat16 on a CPU with AVX-512 it is several times faster.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the weights in place."""
        runner.model.to(memory_format=torch.channels_last)
