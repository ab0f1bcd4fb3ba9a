"""benchmarks/mining.py and bank.py run on little data."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='peaks are those of Linux')
def test_every_part_runs(tmp_path, monkeypatch, capsys):
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for arguments in (
        'mining.py search --images 3000 --expressions 1000',
        'mining.py expressions --images 500 --keep 20',
        'mining.py peak --images 3000 --expressions 1000 --keep 100',
        'mining.py run --images 64 --model RefShapes-CLIP',
        f'mining.py scale --images 1000 --texts 2 --keep 100 --folder {tmp_path}',
        'mining.py texts --expressions 100000',
        f'bank.py --expressions 2000 --keep 200 --workers 1 --folder {tmp_path}',
    ):
        tool, *options = arguments.split()
        monkeypatch.setattr(sys, 'argv', [tool, *options])
        runpy.run_path(str(BENCHMARKS / tool), run_name='__main__')
        assert capsys.readouterr().out, arguments
    torch.set_num_threads(threads)
    assert not list(tmp_path.iterdir())
