"""Shared by all tests: programs that a test starts find this checkout, as the test itself does."""

import os
import tempfile
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

ROOT = str(Path(__file__).resolve().parent.parent)

os.environ['PYTHONPATH'] = os.pathsep.join([ROOT, *filter(None, [os.environ.get('PYTHONPATH')])])

# Nothing goes into the caches of whoever runs the tests, or comes from there.
_caches = tempfile.TemporaryDirectory()
os.environ['NEMO_MMSEG_CACHE'] = _caches.name


@pytest.fixture(scope='session', autouse=True)
def mmseg_scope() -> None:
    """Names in configs mean MMSegmentation's, as in a run, whichever test comes first."""
    init_default_scope('mmseg')
