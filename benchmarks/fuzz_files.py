"""Change files of every kind that the package reads, and look what becomes of it.

``python benchmarks/fuzz_files.py`` prints, for each kind of files, how many mutations were read
right, how many gave an error that names the file, and what did anything else; that is a fault, and
the exit code is 1. ``--only KIND:SEED`` repeats one of them, ``--keep FOLDER`` keeps its files.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ['OMP_NUM_THREADS'] = '1'  # processes are forked
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks'), str(ROOT / 'tools' / 'misc')]

import cv2  # noqa: E402
import torch  # noqa: E402
from fuzzing.judge import ELSE, NAMED, RIGHT, Kind, Outcome, run  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from prettytable import PrettyTable  # noqa: E402

import nemo_mmseg  # noqa: E402, F401


def kinds() -> dict[str, Kind]:
    """Return all kinds of files by name."""
    from fuzzing import annotations, images, networks, pickles, results, stores, weights

    modules = [annotations, images, stores, weights, networks, results, pickles]
    return {kind.name: kind for module in modules for kind in module.KINDS}


def jobs_of(chosen: list[Kind], number: int, first: int) -> list[tuple[Kind, int]]:
    """List mutations: of each kind its share of a number, and of listed cases as large a part.

    All listed cases are there from 1,000 mutations on.
    """
    drawn = sum(kind.share for kind in chosen) or 1
    step = max(1, 1000 // number)
    jobs = []
    for kind in chosen:
        seeds = range(first, first + max(1, round(number * kind.share / drawn)))
        jobs += [(kind, seed) for seed in (range(0, kind.count, step) if kind.count else seeds)]
    return jobs


def fuzz(
    chosen: list[Kind], jobs: list[tuple[Kind, int]], keep: str | None = None
) -> list[Outcome]:
    """Run mutations; returns what became of them."""
    init_default_scope('mmseg')
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for kind in chosen:
        kind.prepare()
    with tempfile.TemporaryDirectory(prefix='fuzz-') as folder:
        return list(run(jobs, Path(keep or folder), keep is not None))


def table(outcomes: list[Outcome]) -> PrettyTable:
    """Count the outcomes of each kind."""
    columns = (RIGHT, NAMED, ELSE)
    counts = Counter((outcome.kind, outcome.result) for outcome in outcomes)
    rows = PrettyTable(['kind', 'mutations', *columns], align='r')
    rows.align['kind'] = 'l'
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        numbers = [counts[kind, column] for column in columns]
        rows.add_row([kind, sum(numbers), *numbers])
    sums = [sum(outcome.result == column for outcome in outcomes) for column in columns]
    rows.add_row(['all', len(outcomes), *sums])
    return rows


def main() -> int:
    """Run, print, and say by the exit code whether all is well."""
    parser = argparse.ArgumentParser(description='Change files and look what becomes of it')
    parser.add_argument('--number', type=int, default=1500, help='mutations (default: 1500)')
    parser.add_argument('--first', type=int, default=0, help='first seed (default: 0)')
    parser.add_argument('--kinds', nargs='+', help='of these kinds alone')
    parser.add_argument('--only', help='KIND:SEED: repeat one mutation')
    parser.add_argument('--keep', help='empty folder that keeps the files')
    parser.add_argument('--all', action='store_true', help='also print what is well')
    args = parser.parse_args()
    known = kinds()
    if args.only:
        name, _, seed = args.only.rpartition(':')
        chosen, jobs = [known[name]], [(known[name], int(seed))]
    else:
        chosen = [known[name] for name in args.kinds or known]
        jobs = jobs_of(chosen, args.number, args.first)
    started, spent = time.perf_counter(), os.times()
    outcomes = fuzz(chosen, jobs, args.keep)
    for outcome in outcomes:
        if outcome.result == ELSE or args.only or args.all:
            print(f'{outcome.result}  --only {outcome.kind}:{outcome.seed}  {outcome.what}')
            print(f'    {outcome.detail}')
    noted = [one for one in outcomes if one.result == RIGHT and one.detail]
    if noted:
        print(f'{len(noted)} with a remark, the first: {noted[0].detail}')
    now = os.times()
    seconds = sum(now[:4]) - sum(spent[:4])
    print(table(outcomes))
    print(f'{time.perf_counter() - started:.0f} s, {seconds:.0f} s of processors')
    return int(any(outcome.result == ELSE for outcome in outcomes))


if __name__ == '__main__':
    sys.exit(main())
