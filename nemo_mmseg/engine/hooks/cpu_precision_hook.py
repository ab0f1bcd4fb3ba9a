"""Evaluate in float32 on CPUs that are slower in bfloat16."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from nemo_mmseg.utils.precision import bfloat16_is_slow


@HOOKS.register_module()
class CPUPrecisionHook(Hook):
    """Switch ``fp16`` of the validation and test loop off on an x86 CPU without AVX-512.

    MMEngine's ``fp16=True`` means bfloat16 on a CPU. Other devices evaluate as the config says.
    """

    def before_val(self, runner: Runner) -> None:
        """Change the validation loop."""
        self._change(runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Change the test loop."""
        self._change(runner.test_loop)

    def _change(self, loop: object) -> None:
        # A loop of somebody's own may have no such option.
        if getattr(loop, 'fp16', False) and bfloat16_is_slow():
            loop.fp16 = False
            print_log('This CPU has no AVX-512: evaluation runs in float32', 'current')
