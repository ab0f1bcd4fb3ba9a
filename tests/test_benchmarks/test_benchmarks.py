"""Every benchmark runs on little data (those of mining: test_mining_benchmarks.py)."""

import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
CRIS = 'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256 --size 64 64'


@pytest.mark.slow
@pytest.mark.parametrize(
    'command',
    [
        'loader.py --images 4 --size 96 96 --rounds 1',
        'psnr.py --count 2',
        f'train_step.py {CRIS} --batch 2 --steps 2 --warm-up 1 --options plain',
        f'inference.py {CRIS} --repeats 2 --expressions 3',
        f'masked_step.py {CRIS} --batch 2 --steps 1',
        'annotation_check.py --share 0.01 --repeats 1',
        'pseudo_masks.py --size 48 64 --objects 2',
        'startup.py --share 0.01 --repeats 1',
    ],
)
def test_it_runs(command, tmp_path, monkeypatch, capfd):
    threads = torch.get_num_threads(), cv2.getNumThreads()
    tool, *options = command.split()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [tool, *options])
    monkeypatch.setattr(sys, 'path', [str(BENCHMARKS), *sys.path])
    runpy.run_path(str(BENCHMARKS / tool), run_name='__main__')
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])
    printed = capfd.readouterr().out
    assert printed.strip() and 'failed' not in printed


@pytest.mark.slow
def test_some_kills():
    command = [sys.executable, '-W', 'ignore', BENCHMARKS / 'kills.py', '--kills', '2']
    run = subprocess.run([*command, '--images', '8'], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and '6 kills, 0 things wrong' in run.stdout, run.stdout + run.stderr
