"""Train under bfloat16 autocast, on GPUs and on the CPUs that are faster with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn

from nemo_mmseg.utils.precision import bfloat16_is_slow


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Run the forward pass of MMEngine's ``OptimWrapper`` under bfloat16 autocast.

    bfloat16 has the range of float32, so no loss is scaled. MMEngine's ``AmpOptimWrapper`` does the
    same with ``dtype='bfloat16'``, but not on a CPU. An x86 CPU without AVX-512 trains in float32,
    which is several times faster there; the log says so.

    Args:
        **kwargs: Arguments of MMEngine's ``OptimWrapper``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.enabled = not bfloat16_is_slow()
        if not self.enabled:
            print_log('This CPU has no AVX-512: training runs in float32, not bfloat16', 'current')

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Return the context of a forward pass in training (MMEngine calls this)."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16, enabled=self.enabled):
            yield
