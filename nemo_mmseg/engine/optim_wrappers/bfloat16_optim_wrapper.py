"""Train under bfloat16 autocast, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Run the forward pass of MMEngine's ``OptimWrapper`` under bfloat16 autocast.

    bfloat16 has the range of float32, so no loss is scaled. MMEngine's ``AmpOptimWrapper`` does the
    same with ``dtype='bfloat16'``, but not on a CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Return the context of a forward pass in training (MMEngine calls this)."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
