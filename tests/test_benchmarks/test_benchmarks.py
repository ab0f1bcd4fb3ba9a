"""Every benchmark runs on little data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
CRIS = 'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256 --size 64 64'
COMMANDS = {
    'loader.py': '--images 4 --size 96 96 --rounds 1',
    'psnr.py': '--count 2',
    'train_step.py': f'{CRIS} --batch 2 --steps 2 --warm-up 1 --options plain',
    'inference.py': f'{CRIS} --repeats 2 --expressions 3',
    'startup.py': '--share 0.01 --repeats 1',
}


@pytest.mark.slow
@pytest.mark.parametrize('name', COMMANDS)
def test_it_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / name, *COMMANDS[name].split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'failed' not in done.stdout and done.stdout.strip()
