"""The wheel, and what mim does with it when it is installed.

The wheel goes into an environment of its own that sees the packages of the one the tests run in,
but not this checkout.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Of these, a wheel has nothing.
LEFT_OUT = 'benchmarks', 'maintenance', 'projects', 'tests'
SOURCES = (
    'nemo_mmseg configs tools requirements setup.py pyproject.toml MANIFEST.in model-index.yml '
    'README.md CHANGELOG.md LICENSE'
).split()
pytestmark = pytest.mark.slow


def run(*command, cwd: Path, **env) -> str:
    """Run a command without this checkout on its path; what it printed."""
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**clean, 'OMP_NUM_THREADS': '1', 'COLUMNS': '200', **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope='module')
def sources(tmp_path_factory) -> Path:
    """A copy of the sources, because building leaves folders behind."""
    folder = tmp_path_factory.mktemp('sources')
    for name in SOURCES:
        ignore = shutil.ignore_patterns('__pycache__', '.mim')
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    for name in LEFT_OUT:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('*.npz'))
    return folder


@pytest.fixture(scope='module')
def wheel(sources) -> Path:
    command = f'-m pip wheel --no-deps --no-build-isolation -w {sources / "dist"} .'
    run(sys.executable, *command.split(), cwd=sources)
    (path,) = (sources / 'dist').glob('*.whl')
    return path


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory) -> Path:
    """Interpreter of an environment with the wheel."""
    folder = tmp_path_factory.mktemp('installed')
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / 'bin' / 'python'
    purelib = run(
        python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=folder
    )
    (Path(purelib.strip()) / 'outer.pth').write_text(sysconfig.get_path('purelib') + '\n')
    command = f'-m pip --python {python} install --no-deps --no-index --ignore-installed {wheel}'
    run(sys.executable, *command.split(), cwd=folder)
    return python


def test_wheel_has_what_mim_and_the_package_need(wheel, sources):
    assert wheel.name.startswith('nemo_mmsegmentation-0.1.0-')
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in names if name.endswith('entry_points.txt')]
    assert {name.split('/')[0].split('-')[0] for name in names} == {
        'nemo_mmseg', 'nemo_mmseg.egg', 'nemo_mmsegmentation'
    }  # fmt: skip
    assert not [name for name in names if set(LEFT_OUT) & set(name.split('/'))]

    # every module, everything in assets, and the copies for mim
    expected = set()
    for part in ('nemo_mmseg', 'configs', 'tools', 'model-index.yml'):
        prefix = '' if part == 'nemo_mmseg' else 'nemo_mmseg/.mim/'
        paths = [sources / part] if (sources / part).is_file() else (sources / part).rglob('*')
        expected |= {prefix + str(p.relative_to(sources)) for p in paths if p.is_file()}
    assert {name for name in expected if '__pycache__' not in name} <= names


def test_wheel_requires_no_openmmlab_family(python, tmp_path):
    code = (
        'import importlib.metadata as m; d = m.distribution("nemo-mmsegmentation");'
        'print(*[r for r in d.requires if "extra" not in r], sep="\\n")'
    )
    assert 'mm' not in run(python, '-c', code, cwd=tmp_path)


def test_sources_are_left_clean(wheel, sources):
    assert not (sources / 'nemo_mmseg' / '.mim').exists()


@pytest.mark.parametrize('name', ['nemo_mmseg', 'nemo-mmsegmentation'])
def test_mim_search(name, python, tmp_path):
    printed = run(python, '-m', 'mim', 'search', name, cwd=tmp_path)
    assert 'cris_r50_nemo_8xb8-50e_refcoco-416x416' in printed


def test_mim_list(python, tmp_path):
    assert 'nemo-mmsegmentation' in run(python, '-m', 'mim', 'list', cwd=tmp_path)


def test_mim_trains_and_tests_the_demo_network(python, tmp_path):
    """From nothing but the wheel, by both names: data, bank, training with NeMo, evaluation."""
    where = run(python, '-c', 'import nemo_mmseg; print(nemo_mmseg.__file__)', cwd=tmp_path)
    assert Path(where.splitlines()[-1]).is_relative_to(python.parents[1])

    mim = [python, '-m', 'mim']
    sizes = '--train 4 --val 2 --testA 2 --testB 2 --workers 1'.split()
    make = ['make_refshapes', 'data/refshapes', '--variants', 'refshapes+', *sizes]
    run(*mim, 'run', 'nemo-mmsegmentation', *make, cwd=tmp_path)

    config = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256.py'
    options = ['--work-dir', 'out', '--cfg-options', 'train_dataloader.batch_size=4']
    options += ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    options += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']
    options += ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    options += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    options += ['default_hooks.logger.interval=1']
    printed = run(*mim, 'train', 'nemo_mmseg', config, *options, cwd=tmp_path)
    assert 'Epoch(train) [1][1/' in printed and 'loss: ' in printed and 'oIoU: ' in printed
    assert list((tmp_path / 'data' / 'refshapes' / 'banks').glob('*.safetensors'))
    options += ['--checkpoint', 'out/epoch_1.pth']
    printed = run(*mim, 'test', 'nemo-mmsegmentation', config, *options, cwd=tmp_path)
    assert 'Testing finished successfully' in printed and 'oIoU: ' in printed
