"""Evaluate in float32 on CPUs that are slower in bfloat16."""

from __future__ import annotations

from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from nemo_mmseg.utils.precision import cpu_has_bfloat16


@HOOKS.register_module()
class CPUPrecisionHook(Hook):
    """Switch ``fp16`` of the validation and test loop off on a CPU without AVX-512.

    MMEngine's ``fp16=True`` means bfloat16 on a CPU. GPUs and CPUs with AVX-512 evaluate as the
    config says.
    """

    def before_val(self, runner: Runner) -> None:
        """Change the validation loop."""
        self._change(runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Change the test loop."""
        self._change(runner.test_loop)

    def _change(self, loop: object) -> None:
        if get_device() == 'cpu' and not cpu_has_bfloat16():
            loop.fp16 = False
