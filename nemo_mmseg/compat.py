"""What makes one code base serve both OpenMMLab families.

The OpenMMLab originals (`mmsegmentation`, `mmcv`, `mmengine`) and the OneDL continuation
(`onedl-mmsegmentation`, ...) share their import names and nearly all of their interfaces. What
differs is tested for by feature here, never by version number.
"""

import importlib.util
import pickle
from collections.abc import Callable, Iterable

_REQUIRED = ('mmengine', 'mmcv', 'mmseg')

INSTALL_HELP = (
    'Install ONE of the two OpenMMLab families (never both: they share their folders), '
    'after PyTorch:\n'
    "  OneDL continuation:   pip install 'onedl-mmsegmentation>=1.4.2' onedl-mmcv onedl-mmengine\n"
    "  OpenMMLab originals:  pip install openmim 'setuptools<82' && mim install "
    "'mmengine>=0.10,<1.0' 'mmcv>=2.0.0rc4,<2.2.0' 'mmsegmentation>=1.2.2'"
)


def check_openmmlab(names: Iterable[str] = _REQUIRED) -> None:
    """Refuse, with the two install lines, an environment that lacks an OpenMMLab package.

    Args:
        names: Import names that must be found. Defaults to mmengine, mmcv and mmseg.

    Raises:
        ImportError: If one of them is missing.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'nemo_mmseg needs MMSegmentation, but {", ".join(missing)} cannot be imported.\n'
            f'{INSTALL_HELP}'
        )


def _statistic_of_history(owner: type, name: str) -> Callable:
    """Stand-in for `getattr` in a checkpoint, good for `HistoryBuffer`'s statistics alone.

    Pickle writes `HistoryBuffer.mean` as a call of `getattr`. Allowing `getattr` itself would let a
    prepared file reach anything.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'refused to look up {name!r} of {owner!r} in a checkpoint')
    return getattr(owner, name)


def allow_checkpoint_globals() -> None:
    """Let `torch.load(weights_only=True)` read what MMEngine itself puts into a checkpoint.

    From PyTorch 2.6 on, `torch.load` refuses all but tensors and plain containers by default, and
    MMEngine 0.10.7 cannot resume from its own files any more: its message hub holds
    `HistoryBuffer` objects with numpy arrays and scalars. Those classes, which run no code, are
    added to PyTorch's list, numpy's under the module names of numpy 1 and 2. Where PyTorch has
    no such list, nothing has to be done.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    add_safe_globals = getattr(torch.serialization, 'add_safe_globals', None)
    if add_safe_globals is None:
        return

    core = getattr(np, '_core', None) or np.core
    functions = (core.multiarray._reconstruct, core.multiarray.scalar)
    renamed = [
        (function, f'numpy.{module}.multiarray.{function.__name__}')
        for function in functions
        for module in ('core', '_core')
    ]
    dtypes = {type(np.dtype(code)) for code in ('?', 'i4', 'i8', 'u4', 'u8', 'f4', 'f8')}
    statistic = (_statistic_of_history, 'builtins.getattr')
    add_safe_globals([HistoryBuffer, np.ndarray, np.dtype, *dtypes, *renamed, statistic])


def apply() -> None:
    """Check the environment and mend what is known to need mending; safe to call again."""
    check_openmmlab()
    allow_checkpoint_globals()
