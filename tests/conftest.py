"""Shared by all tests: programs that a test starts find this checkout, as the test itself does."""

import os
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)

os.environ['PYTHONPATH'] = os.pathsep.join([ROOT, *filter(None, [os.environ.get('PYTHONPATH')])])
