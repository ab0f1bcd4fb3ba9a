"""Is bfloat16 worth using here?"""

from __future__ import annotations

import platform

import torch
from mmengine.device import get_device


def bfloat16_is_slow() -> bool:
    """Return whether the device is an x86 CPU without AVX-512.

    PyTorch has no fast kernels for it: a convolution in bfloat16 falls back to a plain loop. A
    training step of the demo's network then takes 10 times as long as in float32.
    """
    x86 = platform.machine().lower() in ('x86_64', 'amd64')
    capability = torch.backends.cpu.get_cpu_capability()
    return get_device() == 'cpu' and x86 and capability != 'AVX512'
