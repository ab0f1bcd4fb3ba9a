"""What a mosaic costs against a plain sample, with and without a tile store.

    python benchmarks/loader.py                # one process: samples/s, ratios, by transform
    python benchmarks/loader.py --workers 1 2  # rate and memory of workers

It makes its own data (`photo_like.py`: JPEGs of 640x480 and about 130 KB) in a temporary folder, or
in --folder, where it stays. Kinds take turns sample by sample, so that a busy machine is busy for
all; times are CPU time of the one thread that works, and the table has medians.

- `MMSegmentation's plain` is the measure of all others: LoadImageFromFile, Resize, PackSegInputs,
  with LoadReferentMask for the mask;
- `plain` is this package's pipeline: LoadReferringImage, LoadReferentMask, Resize,
  PackReferringInputs;
- the others are mosaics of 2x2 cells in every sample.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable
from torch.utils.data import DataLoader

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import photo_like  # noqa: E402

from nemo_mmseg.datasets.samplers import SampleIndex  # noqa: E402
from nemo_mmseg.mining import requirements as wanted_stores  # noqa: E402

FIRST = "MMSegmentation's plain"


def pipelines(folder: Path, size: tuple[int, int]) -> dict[str, list[dict]]:
    """The pipeline of each kind of sample."""
    resize = dict(type='Resize', scale=size[::-1], keep_ratio=False)
    mask, draw = dict(type='LoadReferentMask'), dict(type='SampleExpressions')
    plain = [dict(type='LoadReferringImage'), mask, resize]
    bank = dict(path=str(folder / 'bank.safetensors'))
    raw = dict(path=str(folder / f'raw_{size[0]}x{size[1]}.safetensors'))
    jpeg = dict(path=str(folder / f'jpeg_{size[0]}x{size[1]}.safetensors'), encoding='jpeg')

    def mosaic(**options: Any) -> list[dict]:
        fixed = dict(type='NeMoMosaic', size=size, transforms=plain, bank=bank, mined_prob=1.0)
        return [draw, dict(fixed, **options), dict(type='PackReferringInputs')]

    return {
        FIRST: [draw, dict(type='LoadImageFromFile'), mask, resize, dict(type='PackSegInputs')],
        'plain': [draw, *plain, dict(type='PackReferringInputs')],
        'mosaic, no store': mosaic(),
        'mosaic, no store, reduced': mosaic(negative_decode='reduced'),
        'mosaic, JPEG store': mosaic(store=jpeg),
        'mosaic, JPEG store, target too': mosaic(store=dict(jpeg, target=True)),
        'mosaic, raw store': mosaic(store=raw),
        'mosaic, raw store, target too': mosaic(store=dict(raw, target=True)),
    }


class Timed:
    """A transform that notes its CPU time."""

    def __init__(self, transform: Any) -> None:
        self.transform, self.times = transform, []

    def __call__(self, results: dict) -> dict:
        """Apply it."""
        start = time.thread_time()
        results = self.transform(results)
        self.times.append(time.thread_time() - start)
        return results


def build(config: dict, folder: Path, size: tuple[int, int]) -> dict[str, Any]:
    """The data set of each kind, with its tile stores made."""
    sets = {}
    for kind, pipeline in pipelines(folder, size).items():
        sets[kind] = DATASETS.build(dict(config, pipeline=pipeline))
        if not (folder / 'bank.safetensors').is_file():
            photo_like.write_bank(sets[kind], folder / 'bank.safetensors')
        for store in wanted_stores(sets[kind]):
            store.make(num_workers=0, progress=False)
    return sets


def measure(sets: dict[str, Any], rounds: int) -> None:
    """Print samples/s, ratios and times by transform; one process, kinds in turn."""
    timed = {kind: [Timed(one) for one in data.pipeline.transforms] for kind, data in sets.items()}
    for kind, data in sets.items():
        data.pipeline.transforms = timed[kind]
        for index in range(0, len(data), 8):  # files and stores get into the page cache
            data[SampleIndex(index, 0, 1)]
    whole: dict[str, list[float]] = {kind: [] for kind in sets}
    for epoch in range(rounds):
        for index in range(len(sets[FIRST])):
            for kind, data in sets.items():
                start = time.thread_time()
                data[SampleIndex(index, epoch, 1)]
                whole[kind].append(time.thread_time() - start)
    middle = {kind: median(times) for kind, times in whole.items()}
    table = PrettyTable(
        ['', 'samples/s', 'ms', "/ MMSeg's", '/ plain', 'ms by transform'], align='r'
    )
    table.align[''] = table.align['ms by transform'] = 'l'
    for kind, seconds in middle.items():
        parts = {type(t.transform).__name__: 1e3 * median(t.times) for t in timed[kind]}
        parts['data set'] = 1e3 * seconds - sum(parts.values())
        table.add_row(
            [
                kind,
                f'{1 / seconds:.0f}',
                f'{1e3 * seconds:.2f}',
                f'{seconds / middle[FIRST]:.2f}',
                f'{seconds / middle["plain"]:.2f}',
                ', '.join(f'{name} {value:.2f}' for name, value in parts.items()),
            ]
        )
    print(table)
    four = middle['mosaic, no store'] / middle['plain']
    print(f'plain samples a second where mosaics of four full decodes come to 67: {67 * four:.0f}')


class OneAfterTheOther(torch.utils.data.Sampler):
    """Indices of several passes, as our samplers yield them."""

    def __init__(self, length: int, samples: int) -> None:
        self.length, self.samples = length, samples

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Any:
        return (SampleIndex(i % self.length, i // self.length, 1) for i in range(self.samples))


def memory(process: int) -> dict[str, float]:
    """Resident memory of a process and its proportional share of it, in MB."""
    found = {}
    for line in open(f'/proc/{process}/smaps_rollup'):
        name, value, *_ = line.split()
        if name in ('Rss:', 'Pss:', 'Pss_File:', 'Pss_Anon:'):
            found[name[:-1]] = int(value) / 1024
    return found


def cpu_seconds(process: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def measure_workers(sets: dict[str, Any], counts: list[int], samples: int) -> None:
    """Print the rate, and what each worker keeps in memory after all samples."""
    table = PrettyTable(
        ['', 'workers', 'samples/s', 'CPU ms a sample', 'Rss a worker', 'Pss a worker']
        + ['sum of Pss'],
        align='r',
    )
    table.align[''] = 'l'
    for kind in ('plain', 'mosaic, no store', 'mosaic, raw store', 'mosaic, raw store, target too'):
        for count in counts:
            data = sets[kind]
            loader = DataLoader(
                data,
                batch_size=8,
                sampler=OneAfterTheOther(len(data), samples),
                num_workers=count,
                collate_fn=list,
                persistent_workers=True,
            )
            batches = iter(loader)
            for _ in range(count):  # workers start
                next(batches)
            processes = [worker.pid for worker in batches._workers]
            used = sum(map(cpu_seconds, processes))
            start, left = time.perf_counter(), len(loader) - count
            for _ in range(left):
                next(batches)
            rate = 8 * left / (time.perf_counter() - start)
            used = sum(map(cpu_seconds, processes)) - used
            found = [memory(process) for process in processes]
            table.add_row(
                [
                    kind,
                    count,
                    f'{rate:.0f}',
                    f'{1e3 * used / (8 * left):.2f}',
                    *(f'{sum(f[k] for f in found) / count:.0f} MB' for k in ('Rss', 'Pss')),
                    f'{sum(f["Pss"] for f in found):.0f} MB',
                ]
            )
            del batches, loader
    print(table)


def main() -> None:
    """Make the data and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--folder', help='where the data lie or are made; default: a temporary one')
    parser.add_argument('--images', type=int, default=128, help='of the data (default 128)')
    parser.add_argument('--size', type=int, nargs=2, default=(480, 480), help='of a sample')
    parser.add_argument('--rounds', type=int, default=3, help='passes over the data (default 3)')
    parser.add_argument('--workers', type=int, nargs='+', help='measure workers instead')
    parser.add_argument('--samples', type=int, default=2000, help='of each kind, with --workers')
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        if not (folder / 'mini').is_dir():
            photo_like.make(folder, args.images)
        files = os.scandir(folder / 'images')
        sizes = [entry.stat().st_size / 1000 for entry in files]
        print(f'{len(sizes)} images, mean {sum(sizes) / len(sizes):.0f} KB')
        sets = build(photo_like.config(folder), folder, tuple(args.size))
        if args.workers:
            measure_workers(sets, args.workers, args.samples)
        else:
            measure(sets, args.rounds)


if __name__ == '__main__':
    main()
