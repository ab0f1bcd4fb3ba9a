"""benchmarks/loader.py runs, on little data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'benchmarks' / 'loader.py'
KINDS = [
    "MMSegmentation's plain", 'plain', 'mosaic, no store', 'mosaic, no store, reduced',
    'mosaic, JPEG store', 'mosaic, JPEG store, target too', 'mosaic, raw store',
    'mosaic, raw store, target too',
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('options, rows', [([], 8), (['--workers', '1', '--samples', '24'], 4)])
def test_it_prints_every_kind(tmp_path, options, rows):
    small = ['--folder', str(tmp_path), '--images', '6', '--size', '96', '96', '--rounds', '1']
    done = subprocess.run(
        [sys.executable, TOOL, *small, *options],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split('|')[1].strip() for line in done.stdout.splitlines() if '|' in line][1:]
    assert len(lines) == rows and set(lines) <= set(KINDS)
    mean = float(done.stdout.split('mean ')[1].split(' KB')[0])
    assert 100 < mean < 170, 'not what COCO weighs'
