"""The comparisons of `check_parity.py`, on the small cases that are kept in tests/data."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def parity():
    """The package tests/parity/parity. The folder tools itself does not come on the path."""
    folder = ROOT / 'tests' / 'parity' / 'parity'
    for name in [name for name in sys.modules if name.partition('.')[0] == 'parity']:
        del sys.modules[name]  # a test of the tool may have imported it
    spec = importlib.util.spec_from_file_location(
        'parity', folder / '__init__.py', submodule_search_locations=[str(folder)]
    )
    module = sys.modules['parity'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cases():
    """The folder with the cases."""
    return ROOT / 'tests' / 'data' / 'parity'


@pytest.fixture
def all_hold():
    """Assert that comparisons were made, and hold; what names the ones that there must be."""

    def check(comparisons, *names):
        made = list(comparisons)
        wrong = [str(one) for one in made if not one.holds]
        assert not wrong, '\n'.join(wrong)
        missing = [name for name in names if not any(name in one.what for one in made)]
        assert not missing, missing
        return made

    return check
