"""What a mosaic costs against a sample without mosaic, with and without a tile store.

    python benchmarks/loader.py                # one process: samples/s, ratios, by transform
    python benchmarks/loader.py --workers 1 2  # rate and memory of workers

It makes its own data (``photo_like.py``: JPEGs of 640x480 and about 130 KB) in a temporary folder,
or in --folder, where they stay. Kinds take turns sample by sample, so that a busy machine is busy
for all. Times are CPU time of the one thread that works, and the table has medians.

- ``MMSegmentation`` is what all others are compared with: LoadImageFromFile, Resize, PackSegInputs,
  with LoadReferentMask for the mask.
- ``without mosaic`` is this package's pipeline.
- The others are mosaics of 2x2 cells in every sample.

A line before the table compares the decoding of a file alone with OpenCV's, without its checks.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable
from torch.utils.data import DataLoader

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import photo_like  # noqa: E402

from nemo_mmseg.datasets.base import BaseReferringDataset  # noqa: E402
from nemo_mmseg.datasets.requirements import TileRequirement  # noqa: E402
from nemo_mmseg.datasets.samplers import SampleIndex  # noqa: E402
from nemo_mmseg.mining.requirements import make, requirements_of  # noqa: E402
from nemo_mmseg.negatives.tile_store import TileStore  # noqa: E402
from nemo_mmseg.utils.images import decode_image  # noqa: E402

FIRST = 'MMSegmentation'


def pipelines(folder: Path, size: tuple[int, int]) -> dict[str, list[dict]]:
    """Return the pipeline of each kind of sample."""
    resize = dict(type='Resize', scale=size[::-1], keep_ratio=False)
    mask, draw = dict(type='LoadReferentMask'), dict(type='SampleExpressions')
    load, pack = [dict(type='LoadReferringImage'), mask, resize], dict(type='PackReferringInputs')
    mosaic = dict(
        type='NeMoMosaic',
        size=size,
        transforms=load,
        bank=dict(path=str(folder / 'bank.safetensors')),
        schedule=dict(mined=1.0),
    )
    kinds = {
        FIRST: [draw, dict(type='LoadImageFromFile'), mask, resize, dict(type='PackSegInputs')],
        'without mosaic': [draw, *load, pack],
        'mosaic, image files': [draw, mosaic, pack],
    }
    for encoding in ('jpeg', 'raw'):
        path = str(folder / f'{encoding}_{size[0]}x{size[1]}.safetensors')
        tiles = dict(path=path, encoding=encoding)
        kinds[f'mosaic, {encoding} tiles'] = [draw, dict(mosaic, tiles=tiles), pack]
    return kinds


class Timed:
    """A transform that notes its CPU time."""

    def __init__(self, transform: BaseTransform) -> None:
        self.transform, self.times = transform, []

    def __call__(self, results: dict) -> dict:
        """Apply it."""
        start = time.thread_time()
        results = self.transform(results)
        self.times.append(time.thread_time() - start)
        return results


def build(folder: Path, size: tuple[int, int]) -> dict[str, BaseReferringDataset]:
    """Return the data set of each kind, with its bank and tile stores made."""
    sets = {}
    for kind, pipeline in pipelines(folder, size).items():
        data = DATASETS.build(dict(photo_like.config(folder), pipeline=pipeline))
        if not (folder / 'bank.safetensors').is_file():
            photo_like.write_bank(data, folder / 'bank.safetensors')
        for requirement in requirements_of(data):
            if isinstance(requirement, TileRequirement):
                make(requirement, num_workers=0, progress=False)
        sets[kind] = data
    return sets


def measure_decoding(folder: Path, rounds: int) -> None:
    """Print what the checks of an image file cost: CPU time of read images, against OpenCV's."""
    files = [Path(entry.path) for entry in os.scandir(folder / 'images')]
    contents = [(file.read_bytes(), str(file)) for file in files]
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoders = [decode_image, lambda content, _: cv2.imdecode(np.frombuffer(content, 'u1'), flags)]
    times: list[list[float]] = [[], []]
    for turn in range(2 * rounds):
        for content in contents:
            for which in (0, 1) if turn % 2 else (1, 0):
                start = time.thread_time()
                decoders[which](*content)
                times[which].append(time.thread_time() - start)
    ours, bare = map(median, times)
    print(f'decoding a file: {1e3 * ours:.2f} ms, {ours / bare:.3f} times OpenCV alone')


def measure(sets: dict[str, BaseReferringDataset], rounds: int) -> None:
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
    head = ['', 'samples/s', 'ms', f'/ {FIRST}', '/ without mosaic', 'ms by transform']
    table = PrettyTable(head, align='r')
    table.align[''] = table.align['ms by transform'] = 'l'
    for kind, seconds in middle.items():
        parts = {type(t.transform).__name__: 1e3 * median(t.times) for t in timed[kind]}
        parts['data set'] = 1e3 * seconds - sum(parts.values())
        ratios = [f'{seconds / middle[other]:.2f}' for other in (FIRST, 'without mosaic')]
        texts = ', '.join(f'{name} {value:.2f}' for name, value in parts.items())
        table.add_row([kind, f'{1 / seconds:.0f}', f'{1e3 * seconds:.2f}', *ratios, texts])
    print(table)


def measure_reads(sets: dict[str, BaseReferringDataset]) -> None:
    """Print what a tile costs when a process reads it first, with its checksum, and afterwards."""
    for kind, data in sets.items():
        for requirement in requirements_of(data):
            if not isinstance(requirement, TileRequirement):
                continue
            store, times = TileStore(requirement.spec.path), ([], [])
            for row in range(len(store)):
                store.read(row).sum()  # in the cache of the processor
            for _ in range(20):
                store = TileStore(requirement.spec.path)
                for row in range(len(store)):
                    for found in times:
                        start = time.perf_counter()
                        store.read(row)
                        found.append(time.perf_counter() - start)
            first, again = (1e6 * median(found) for found in times)
            print(f'{kind}: a tile in {first:.1f} us at first, then in {again:.1f} us')


class Consecutive(torch.utils.data.Sampler):
    """Indices of several epochs in order, as our samplers yield them."""

    def __init__(self, length: int, samples: int) -> None:
        self.length, self.samples = length, samples

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[SampleIndex]:
        return (SampleIndex(i % self.length, i // self.length, 1) for i in range(self.samples))


def memory(process: int) -> dict[str, float]:
    """Return resident memory of a process and its proportional share, in MB."""
    lines = [line.split() for line in open(f'/proc/{process}/smaps_rollup')]
    return {line[0][:-1]: int(line[1]) / 1024 for line in lines if line[0] in ('Rss:', 'Pss:')}


def cpu_seconds(process: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def measure_workers(sets: dict[str, BaseReferringDataset], counts: list[int], samples: int) -> None:
    """Print the rate, and what each worker keeps in memory after all samples."""
    head = ['', 'workers', 'samples/s', 'CPU ms a sample', 'Rss a worker', 'Pss a worker']
    table = PrettyTable([*head, 'sum of Pss'], align='r')
    table.align[''] = 'l'
    for kind in ('without mosaic', 'mosaic, image files', 'mosaic, raw tiles'):
        for count in counts:
            loader = DataLoader(
                sets[kind],
                batch_size=8,
                sampler=Consecutive(len(sets[kind]), samples),
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
            used = (sum(map(cpu_seconds, processes)) - used) / (8 * left)
            found = [memory(process) for process in processes]
            rss, pss = (sum(of[key] for of in found) for key in ('Rss', 'Pss'))
            sizes = [f'{size:.0f} MB' for size in (rss / count, pss / count, pss)]
            table.add_row([kind, count, f'{rate:.0f}', f'{1e3 * used:.2f}', *sizes])
            del batches, loader
    print(table)


def main() -> None:
    """Make the data and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--folder', help='where the data lie or are made; default: a temporary one')
    parser.add_argument('--images', type=int, default=128, help='of the data (default 128)')
    parser.add_argument('--size', type=int, nargs=2, default=(480, 480), help='of a sample')
    parser.add_argument('--rounds', type=int, default=3, help='epochs (default 3)')
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
        sizes = [entry.stat().st_size / 1000 for entry in os.scandir(folder / 'images')]
        print(f'{len(sizes)} images, mean {sum(sizes) / len(sizes):.0f} KB')
        sets = build(folder, tuple(args.size))
        if args.workers:
            measure_workers(sets, args.workers, args.samples)
        else:
            measure_decoding(folder, args.rounds)
            measure_reads(sets)
            measure(sets, args.rounds)


if __name__ == '__main__':
    main()
