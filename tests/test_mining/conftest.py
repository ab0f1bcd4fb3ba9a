"""The tiny CLIP and data set, as fixtures."""

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

PROGRAM = Path(__file__).with_name('tiny_mining.py')


@pytest.fixture(scope='session')
def tiny():
    """The names of tiny_mining.py."""
    return SimpleNamespace(program=str(PROGRAM), **runpy.run_path(str(PROGRAM)))


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Tiny products gain nothing from threads, and wait for one another where tests run at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session')
def shared_folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp('tiny')
    tiny.make(str(folder))
    return str(folder)


@pytest.fixture
def own_folder(shared_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(shared_folder, tmp_path / 'tiny')


@pytest.fixture(scope='session')
def mined(tiny, shared_folder, tmp_path_factory):
    """The bank of an unbroken run in one process."""
    path = tmp_path_factory.mktemp('mined') / 'tiny.safetensors'
    tiny.mine(shared_folder, path)
    return path
