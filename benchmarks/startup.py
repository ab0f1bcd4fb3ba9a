"""How long it takes until a run can begin: annotations of RefCOCO's size, and the import.

    python benchmarks/startup.py

Writes annotations of RefCOCO's size and reads the training split, each time in a new process.
Prints CPU and wall seconds, the size of the items, the time to read one, the memory that stays,
and what a forked worker holds for itself after it has read every item. Then what ``import
nemo_mmseg`` adds to ``import mmseg.models``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

IMPORT = """
import time
first = time.process_time(), time.perf_counter()
import mmseg.models
second = time.process_time(), time.perf_counter()
import nemo_mmseg
third = time.process_time(), time.perf_counter()
print(third[0] - second[0], third[1] - second[1], second[0] - first[0])
"""


def memory(key: str) -> float:
    """Read a line of /proc/self/smaps_rollup, in MB; nan where there is none."""
    try:
        lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    except OSError:
        return float('nan')
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def of_worker(dataset) -> float:
    """Measure the MB that a forked process holds for itself after reading every item."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        before = memory('Private_Dirty')
        for index in range(len(dataset)):
            dataset.get_data_info(index)
        os.write(send, str(memory('Private_Dirty') - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return float(os.read(receive, 100))


def read(folder: str) -> dict[str, float]:
    """Build the data set once in this process."""
    from nemo_mmseg.datasets.refcoco import RefCOCODataset

    before = memory('Pss')
    cpu, wall = time.process_time(), time.perf_counter()
    dataset = RefCOCODataset(
        data_root=folder,
        ann_file='refcoco/instances.json',
        split_file='refcoco/refs(unc).p',
        split='train',
        data_prefix=dict(img_path='images'),
    )
    found = dict(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall)
    start = time.process_time()
    for index in range(len(dataset)):
        dataset.get_data_info(index)
    found.update(item=1e6 * (time.process_time() - start) / len(dataset))
    found.update(items=dataset.data_bytes.nbytes / 1e6, stays=memory('Pss') - before)
    return dict(found, worker=of_worker(dataset))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--share', type=float, default=1.0, help="of RefCOCO's size (default 1)")
    parser.add_argument('--repeats', type=int, default=3, help='processes of each kind (default 3)')
    parser.add_argument('--folder', help='where files are written; default: the temporary one')
    parser.add_argument('--read', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read)))
        return
    from refcoco_size import write_refcoco_size

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        counts = write_refcoco_size(Path(folder), args.share)
        (Path(folder) / 'images').mkdir()
        for image in range(counts['images']):
            (Path(folder) / 'images' / f'COCO_train2014_{image:012d}.jpg').touch()
        size = sum(file.stat().st_size for file in (Path(folder) / 'refcoco').iterdir()) / 1e6
        print(', '.join(f'{n} {what}' for what, n in counts.items()) + f'; {size:.0f} MB')
        runs = [run(sys.argv[0], '--read', folder) for _ in range(args.repeats)]
    several = [json.loads(lines[-1]) for lines in runs]
    found = {key: median(one[key] for one in several) for key in several[0]}
    print(
        f'reading: {found["cpu"]:.2f} s of CPU ({found["wall"]:.2f} s), items of '
        f'{found["items"]:.1f} MB, {found["item"]:.1f} us an item; {found["stays"]:.0f} MB stay, '
        f'{found["worker"]:.1f} MB a worker'
    )
    several = [[float(word) for word in run('-c', IMPORT)[-1].split()] for _ in range(args.repeats)]
    cpu, wall, before = map(median, zip(*several))
    print(
        f'import nemo_mmseg: {cpu:.2f} s of CPU ({wall:.2f} s) more than import mmseg.models, '
        f'which takes {before:.2f}'
    )


def run(*arguments: str) -> list[str]:
    """Run Python on this checkout, and return the lines it prints."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': path},
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.splitlines()


if __name__ == '__main__':
    main()
