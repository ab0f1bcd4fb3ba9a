"""benchmarks/mining.py and bank.py run on little data, and what they print can be true."""

import mmap
import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
needs_linux = pytest.mark.skipif(
    not Path('/proc/self/clear_refs').exists(), reason='peaks are measured by /proc'
)


def benchmark(tool, *arguments):
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', BENCHMARKS / tool, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def mining(monkeypatch):
    """The functions of mining.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / 'mining.py'), run_name='tool')


def arguments_of(mining, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['mining.py', *arguments])
    return mining['read_arguments']()


@needs_linux
def test_a_peak_is_what_is_held_at_once(mining):
    def fill(megabytes):
        # Of the system, not of the heap, whose free places other tests have made.
        memory = np.frombuffer(mmap.mmap(-1, megabytes * 2**20), np.uint8)
        memory[:] = 1
        return memory

    fill(200)  # larger than what follows
    held = fill(50)
    with mining['Peak']() as peak:
        for size in (20, 30):
            fill(size)
    assert held.any() and 25 < peak.mb < 40  # the kernel counts by batches of pages
    with mining['Peak']() as peak:
        pass
    assert -5 < peak.mb < 5


def test_peaks_are_refused_where_they_cannot_be_measured(mining, monkeypatch):
    def missing(self, text):
        raise FileNotFoundError(2, 'No such file or directory', str(self))

    monkeypatch.setattr(Path, 'write_text', missing)
    with pytest.raises(OSError, match='on Linux alone'), mining['Peak']():
        pass


def test_options_of_other_parts_are_refused(mining, monkeypatch, capsys):
    args = arguments_of(mining, monkeypatch, 'search')
    assert (args.images, args.expressions, args.device) == ([16_994], 20_000, 'cpu')
    args = arguments_of(mining, monkeypatch, 'scale', '--images', '10', '20', '--texts', '4')
    assert (args.images, args.texts, args.keep) == ([10, 20], 4, 300)
    for wrong in (
        ['search', '--texts', '4'],
        ['index', '--device', 'cuda'],
        ['run', '--keep', '9'],
    ):
        with pytest.raises(SystemExit):
            arguments_of(mining, monkeypatch, *wrong)
        assert f'unrecognized arguments: {wrong[1]}' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        arguments_of(mining, monkeypatch, 'run', '--images', '100')
    assert 'multiples of 64' in capsys.readouterr().err


def test_texts_are_as_long_as_is_said(mining):
    texts = mining['refcoco_like'](3_634)
    lengths = [len(text.split()) for text in texts]
    assert len(set(texts)) == 3_634
    assert np.mean(lengths) == pytest.approx(4.38, abs=0.005)  # so docs/performance.md
    assert min(lengths) == 1 and 15 < max(lengths) < 30


@pytest.mark.skipif(find_spec('faiss') is None, reason='no faiss')
def test_an_index_that_finds_too_few_is_one_row_of_several(mining, capsys):
    mining['measure_indexes'](2_000, 32, 150)
    few, some, more = capsys.readouterr().out.splitlines()
    assert few.startswith('IVF44,Flat;nprobe=2, 2000 images, keep=150: ')
    assert 'finds fewer than 150 images' in few
    recalls = [float(re.search(r'recall ([\d.]+), [\d.]+ x', row).group(1)) for row in (some, more)]
    assert 0 < recalls[0] <= recalls[1] <= 1


@needs_linux
@pytest.mark.slow
def test_search_prints_ratios_and_peaks():
    printed = benchmark('mining.py', 'search', '--images', 3_000, '--expressions', 1_000)
    rows = printed.splitlines()
    for row, kinds in zip(rows[:2], ('no', '50'), strict=True):
        assert row.startswith(f'search of 1000 texts in 3000 images ({kinds} kinds, cpu)')
        ratios = dict(re.findall(r'(keep=\d+) ([\d.]+)', row))
        assert list(ratios) == ['keep=300', 'keep=1000', 'keep=5000']
        assert all(0.5 < float(ratio) < 50 for ratio in ratios.values()), row
    peaks = re.findall(r'(\d+) texts, 3000 images, keep=(\d+): peak (\d+) MB', printed)
    sizes = [tuple(map(int, peak[:2])) for peak in peaks]
    assert sizes == [(100, 300), (1000, 300), (100, 1000), (1000, 1000)]
    # Less than the parent holds; the scores of 1,000 texts alone are 11 MB.
    assert all(5 <= int(peak) < 130 for *_, peak in peaks), printed
    assert all(int(peak) >= 15 for texts, _, peak in peaks if texts == '1000'), printed


@needs_linux
@pytest.mark.slow
def test_scale_prints_memory(tmp_path):
    printed = benchmark(
        'mining.py', 'size', '--images', 1_000, '--texts', 2, '--keep', 100, '--folder', tmp_path
    )
    assert printed.startswith('1000 images (2 MB), 2000 texts, keep=100: ')
    peak, bank, held = (int(x) for x in re.findall(r'(\d+) MB', printed)[1:])
    # 2 + 2 bytes a neighbour, 2 a number of the vectors; only rows that are read are held.
    assert 10 < peak < 130 and bank == round((2000 * 100 * 4 + 1000 * 512 * 2) / 1e6)
    assert 0 <= held <= 10 and not list(tmp_path.iterdir())


@needs_linux
@pytest.mark.slow
def test_telling_texts_apart_takes_memory():
    printed = benchmark('mining.py', 'texts', '--expressions', 100_000)
    peak = re.fullmatch(r'100000 expressions told apart: [\d.]+ s, (\d+) MB\n', printed)
    assert 2 <= int(peak.group(1)) < 50, printed  # an index of 8 bytes each, and a table


@pytest.mark.slow
def test_run_measures_mine_bank():
    printed = benchmark('mining.py', 'run', '--images', 64).splitlines()
    words, *log, tower, whole = printed  # the log is that of mine_bank
    assert any('Mining' in line and '454 expressions' in line for line in log), printed
    assert re.fullmatch(r'454 texts of [34]\.\d\d words, at most \d+', words)
    numbers = re.search(r'alone: ([\d.]+) \(images ([\d.]+), texts ([\d.]+)\)', tower)
    both, images, texts = map(float, numbers.groups())
    assert images > 0.5 and texts > 0.1 and abs(both - images - texts) < 0.02
    ratio = re.fullmatch(
        r'mine_bank .* an empty cache / the batched image tower alone: ([\d.]+)', whole
    )
    assert float(ratio.group(1)) > 1


@needs_linux
@pytest.mark.slow
def test_bank_prints_sizes_times_and_shared_memory(tmp_path):
    printed = benchmark('bank.py', '--expressions', 2_000, '--keep', 200, '--folder', tmp_path)
    written, opened, *workers = printed.splitlines()
    size, peak = map(int, re.findall(r'(\d+) MB', written))
    assert size == round((2_000 * 200 * 4 + 16_994 * (512 * 2 + 8 + 8 + 31)) / 1e6)
    assert 5 <= peak < 130, written
    assert all(float(x) > 0 for x in re.findall(r'([\d.]+) (?:ms|us)', opened)), opened
    assert len(workers) == 4
    for worker in workers:
        rss, pss = (float(re.search(rf'{key} ([\d.]+) MB', worker)[1]) for key in ('Rss', 'Pss'))
        assert 1 < rss < size and pss < 0.7 * rss, worker
