"""Measure what the bank costs its readers, at the size of RefCOCO's training set.

``python benchmarks/bank.py`` writes a bank of random rankings, opens it, takes bands, and reads
it in several processes, on Linux.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from memory import Peak

from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import NegativeBank

EXPRESSIONS, IMAGES, DIM = 120_624, 16_994, 512


def write_bank(path: str, expressions: int, keep: int) -> None:
    """Write a bank of random rankings."""
    rng = np.random.default_rng(0)
    vectors, started = rng.random((IMAGES, DIM), np.float32), time.perf_counter()
    with (
        Peak() as peak,
        BankWriter(
            path,
            np.arange(expressions),
            rng.integers(0, IMAGES, expressions),
            np.arange(IMAGES),
            [f'COCO_train2014_{i:012d}.jpg' for i in range(IMAGES)],
            vectors,
            keep,
            dict(fingerprint='0'),
        ) as writer,
    ):
        for part in np.array_split(np.arange(expressions), -(-expressions // 1000)):
            rows = rng.integers(0, IMAGES, (len(part), keep))
            similarities = np.linspace(0.35, 0.1, keep)[None] + rng.normal(0, 0.02, (len(part), 1))
            writer.write(part, rows, similarities, rng.normal(0.3, 0.02, len(part)))
    print(
        f'bank written: {os.path.getsize(path) / 1e6:.0f} MB '
        f'in {time.perf_counter() - started:.1f} s, peak {peak.mb:.0f} MB',
        flush=True,
    )


def read_bank(path: str) -> None:
    """Print the time to open the bank, to take a band, and to size all bands."""
    opening = []
    for _ in range(20):
        started = time.perf_counter()
        NegativeBank(path).row(0)
        opening.append(time.perf_counter() - started)
    bank, rule = NegativeBank(path), BandRule(0.95)
    ids = np.random.default_rng(0).integers(0, len(bank), 20_000).tolist()
    started = time.perf_counter()
    for sent_id in ids:
        bank.band(sent_id, rule)
    band = (time.perf_counter() - started) / len(ids)
    sizes = []
    bank = NegativeBank(path)
    for _ in range(2):  # with checksums, and without
        started = time.perf_counter()
        bank.band_sizes(rule)
        sizes.append(time.perf_counter() - started)
    print(
        f'bank opened in {1e3 * statistics.median(opening):.2f} ms (at most '
        f'{1e3 * max(opening):.2f}); a band in {1e6 * band:.1f} us; all sized in {sizes[0]:.2f} s, '
        f'once more in {sizes[1]:.2f} s',
        flush=True,
    )


def read_as_worker(path: str) -> None:
    """Read all of the bank, wait for the others, and print what its pages cost this process."""
    bank = NegativeBank(path)
    bank.arrays['neighbors'].max(), bank.arrays['similarities'].max()
    print('read', flush=True)
    sys.stdin.readline()
    sums = dict.fromkeys(('Rss', 'Pss', 'Private_Clean', 'Private_Dirty'), 0)
    inside = False
    for line in open('/proc/self/smaps'):
        key = line.split(':')[0]
        if '-' in key.split()[0] and key not in sums:
            inside = path in line
        elif inside and key in sums:
            sums[key] += int(line.split()[1])
    print(', '.join(f'{key} {value / 1024:.1f} MB' for key, value in sums.items()), flush=True)
    sys.stdin.readline()


def measure_workers(path: str, count: int) -> None:
    """Print what the bank's mapping costs several processes that read all of it."""
    command = [sys.executable, '-W', 'ignore', __file__, '--worker', path]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for worker in workers:
        worker.stdout.readline()
    for worker in workers:
        print(file=worker.stdin, flush=True)
        print(f'worker, of {count}: {worker.stdout.readline().strip()}')
    for worker in workers:
        # Only now may they go: what is private or shared depends on who else has the page.
        print(file=worker.stdin, flush=True)
        worker.wait()


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description='Measure the bank')
    parser.add_argument('--expressions', type=int, default=EXPRESSIONS)
    parser.add_argument('--keep', type=int, default=1000)
    parser.add_argument('--workers', type=int, default=4, help='processes that read it')
    parser.add_argument('--folder', help='where the bank is written; default: the temporary one')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        read_as_worker(args.worker)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = os.path.join(folder, 'bank.safetensors')
        write_bank(path, args.expressions, args.keep)
        read_bank(path)
        measure_workers(path, args.workers)


if __name__ == '__main__':
    main()
