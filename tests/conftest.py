"""Shared by all tests: where programs find this checkout, and data that is made once a run."""

import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
# Programs that a test starts find this checkout, as the test itself does.
os.environ['PYTHONPATH'] = os.pathsep.join([ROOT, *filter(None, [os.environ.get('PYTHONPATH')])])
# Nothing goes into the caches of whoever runs the tests, or comes from there.
_caches = tempfile.TemporaryDirectory()
os.environ['NEMO_MMSEG_CACHE'] = _caches.name
# Networks are so small that more threads only wait for one another; processes run side by side.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest  # noqa: E402
import yapf.yapflib.yapf_api  # noqa: E402
from filelock import FileLock  # noqa: E402

# MMEngine puts the config into each checkpoint. To format it takes longer than to train in small.
yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, False)

from mini_refcoco import gref_mini, mini  # noqa: E402, F401  (fixtures)
from mmengine.registry import init_default_scope  # noqa: E402
from own_data import own  # noqa: E402, F401  (fixture)


@pytest.fixture(scope='session', autouse=True)
def mmseg_scope() -> None:
    """Names in configs mean MMSegmentation's, as in a run, whichever test comes first."""
    init_default_scope('mmseg')


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager]:
    """Let files of this process grow to some bytes alone: `EFBIG`, as a full disk is `ENOSPC`."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)

    return limited


@pytest.fixture(scope='session')
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a folder once per test run: `make_once(name, make)` calls `make(folder)`.

    The workers of pytest-xdist share the folder, so that tests must only read it.
    """
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        base = base.parent

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, part = base / name, base / f'{name}.part'
        with FileLock(base / f'{name}.lock'):
            if not folder.exists():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                make(part)
                part.rename(folder)
        return folder

    return make_once


@pytest.fixture(scope='session')
def refshapes(make_once) -> Path:
    """All variants of RefShapes: 12 images of train, 3 of val, 2 of testA and testB each; seed 5.

    Read only.
    """
    from nemo_mmseg.refshapes import VARIANTS, make_refshapes

    sizes = dict(train=12, val=3, testA=2, testB=2)

    def make(folder: Path) -> None:
        for variant in VARIANTS:
            make_refshapes(folder, variant, sizes, seed=5, workers=1)

    return make_once('refshapes', make)


@pytest.fixture(scope='session')
def refshapes_bank(make_once, refshapes: Path) -> Path:
    """The bank of `refshapes`, variant refshapes+, as the demo's config asks for it. Read only."""
    from mmseg.registry import DATASETS
    from small_runs import NEMO, small_config

    from nemo_mmseg.mining.requirements import make, requirements_of

    def mine(folder: Path) -> None:
        cfg = small_config(NEMO, refshapes, folder / 'refshapes-plus.safetensors')
        for requirement in requirements_of(DATASETS.build(cfg.train_dataloader.dataset)):
            make(requirement, num_workers=0, progress=False)

    return make_once('banks', mine) / 'refshapes-plus.safetensors'
