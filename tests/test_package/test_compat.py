"""What `import nemo_mmseg` does to an environment, and what it needs of it."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from nemo_mmseg import compat


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


@pytest.mark.parametrize('name', ['mmseg', 'mmcv', 'mmengine'])
def test_missing_openmmlab_prints_both_install_lines(name):
    done = run_python(f'import sys; sys.modules[{name!r}] = None; import nemo_mmseg')
    assert done.returncode != 0
    assert f'nemo_mmseg needs MMSegmentation, but {name} cannot be imported' in done.stderr
    assert "pip install 'onedl-mmsegmentation" in done.stderr
    assert 'mim install' in done.stderr


def test_all_missing_packages_are_named():
    with pytest.raises(ImportError, match='no_such_one, no_such_two cannot'):
        compat.check_openmmlab(['numpy', 'no_such_one', 'no_such_two'])


def test_import_leaves_the_big_libraries_alone():
    done = run_python("""
import sys
import mmseg.models
before = set(sys.modules)
import nemo_mmseg
heavy = {'open_clip', 'transformers', 'diffusers', 'timm', 'matplotlib', 'pandas'}
print(sorted(heavy & (set(sys.modules) - before)))
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '[]'


@pytest.fixture(autouse=True)
def allowed():
    # a loader of MMEngine's, run by an earlier test of this process, may have taken them away
    compat.allow_checkpoint_globals()


def test_what_mmengine_stores_loads_with_weights_only():
    buffer = HistoryBuffer([0.5, 0.25], [1, 1])
    stored = dict(
        state_dict=dict(weight=torch.ones(2)),
        message_hub=dict(
            log_scalars=dict(loss=buffer),
            runtime_info=dict(seed=np.int64(3), lr=np.float64(0.1), names=np.arange(3)),
        ),
    )
    file = io.BytesIO()
    torch.save(stored, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)['message_hub']
    assert loaded['log_scalars']['loss'].mean() == buffer.mean()
    assert loaded['runtime_info']['seed'] == 3
    assert loaded['runtime_info']['names'].tolist() == [0, 1, 2]


def test_numpy_is_found_under_the_module_names_of_both_major_versions():
    from torch.serialization import get_safe_globals

    renamed = {entry[1] for entry in get_safe_globals() if isinstance(entry, tuple)}
    for module in ('core', '_core'):
        assert f'numpy.{module}.multiarray._reconstruct' in renamed
        assert f'numpy.{module}.multiarray.scalar' in renamed


def test_numpy_1_whose_core_module_lists_nothing(monkeypatch):
    from nemo_mmseg.compat import mmengine_globals

    # numpy 1.26 has the new module names for readers of pickles alone
    monkeypatch.delattr(np._core, 'multiarray')
    expected = np.empty(0).__reduce__()[0]
    assert (expected, 'numpy.core.multiarray._reconstruct') in mmengine_globals()


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'evil',
    [
        Call(eval, '1 + 1'),
        Call(getattr, HistoryBuffer, '__init__'),
        Call(getattr, np.ndarray, 'tofile'),
    ],
    ids=['eval', 'getattr-other-name', 'getattr-other-class'],
)
def test_code_in_a_checkpoint_is_still_refused(evil):
    file = io.BytesIO()
    torch.save(dict(state_dict=evil), file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)


def test_apply_twice_is_harmless():
    before = set(map(str, torch.serialization.get_safe_globals()))
    compat.apply()
    assert set(map(str, torch.serialization.get_safe_globals())) == before
