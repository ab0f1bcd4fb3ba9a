"""Serve both OpenMMLab families with one code base.

The OpenMMLab originals (``mmsegmentation``, ``mmcv``, ``mmengine``) and the OneDL continuation
(``onedl-mmsegmentation``, ...) share their import names and nearly all of their interfaces. The
differences are tested for by feature here, never by version number.
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
from collections.abc import Callable, Iterable, Iterator

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
    """Stand in for ``getattr`` in a checkpoint, only for the statistics of ``HistoryBuffer``.

    Pickle writes ``HistoryBuffer.mean`` as a call of ``getattr``. Allowing ``getattr`` itself would
    let a prepared file reach anything.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'refused to look up {name!r} of {owner!r} in a checkpoint')
    return getattr(owner, name)


def _numpy_function(name: str) -> list[tuple[Callable, str]]:
    """Return a function that rebuilds NumPy's pickles, by its names in numpy 1 and 2."""
    try:
        multiarray = importlib.import_module('numpy._core.multiarray')
    except ImportError:  # before numpy 1.26
        multiarray = importlib.import_module('numpy.core.multiarray')
    function = getattr(multiarray, name)
    return [(function, f'numpy.{module}.multiarray.{name}') for module in ('core', '_core')]


def numpy_scalar_globals() -> list:
    """Return what ``torch.load(weights_only=True)`` needs for NumPy's numbers (no arrays)."""
    import numpy as np

    dtypes = {type(np.dtype(code)) for code in ('?', 'i4', 'i8', 'u4', 'u8', 'f4', 'f8')}
    return [np.dtype, *dtypes, *_numpy_function('scalar')]


def mmengine_globals() -> list:
    """Return what ``torch.load(weights_only=True)`` needs for MMEngine's checkpoints.

    Their message hub holds ``HistoryBuffer`` objects with numpy arrays and scalars. None of these
    classes runs code.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    statistic = (_statistic_of_history, 'builtins.getattr')
    arrays = [np.ndarray, *_numpy_function('_reconstruct')]
    return [HistoryBuffer, *arrays, *numpy_scalar_globals(), statistic]


def allow_checkpoint_globals() -> None:
    """Let ``torch.load(weights_only=True)`` read MMEngine's checkpoints, in the whole process.

    From PyTorch 2.6 on, ``torch.load`` only reads tensors and plain containers by default, and
    MMEngine 0.10.7 can no longer resume from the files that it writes.
    """
    import torch

    torch.serialization.add_safe_globals(mmengine_globals())


@contextlib.contextmanager
def only_globals(allow: Iterable) -> Iterator[None]:
    """Allow these classes in ``torch.load(weights_only=True)``, and none that were allowed before.

    Args:
        allow: Classes and functions, as ``torch.serialization.add_safe_globals`` takes them.
    """
    import torch

    listed = torch.serialization
    before = listed.get_safe_globals()
    try:
        listed.clear_safe_globals()
        listed.add_safe_globals(list(allow))
        yield
    finally:
        listed.clear_safe_globals()
        listed.add_safe_globals(before)


def apply() -> None:
    """Check the environment and apply the fixes that it needs; safe to call again."""
    check_openmmlab()
    allow_checkpoint_globals()
