"""Kill mining and the making of tile stores at random, and look at what is left each time.

    python benchmarks/kills.py                      # 30 kills, about 8 minutes on two cores
    python benchmarks/kills.py --kills 100 --seed 1

It runs ``tools/mine_negatives.py`` and ``tools/misc/make_tile_store.py``, with two workers, on
small RefShapes in a temporary folder. In a burst some runs are killed by SIGKILL, one after the
other, at random moments after the tool has begun to write; then a run finishes. After each kill,
nothing may lie under the final name, or the whole file, and no process of the killed run may be
left. After each finish, the file must be byte for byte that of an unbroken run, and nothing else
may lie beside it. One line per burst, then the counts; exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/refshapes/cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256.py'
CONFIG_TEXT = """
import copy

_base_ = [{config!r}]
pipeline = copy.deepcopy(_base_.train_dataloader.dataset.pipeline)
mosaic = next(part for part in pipeline if part['type'] == 'NeMoMosaic')
{changes}
train_dataloader = dict(dataset=dict(data_root={root!r}, pipeline=pipeline))
"""
CHANGES = dict(
    bank="mosaic['bank']['path'] = {path!r}", tiles="mosaic['tiles'] = dict(path={path!r})"
)
# Runs of a burst that are killed before one finishes.
BURST = 3
# Seconds in which the processes of a killed run must be gone, and in which a run must finish.
GONE, FINISHED = 10, 300


@dataclass
class Tool:
    """One of the tools, and what it makes.

    Attributes:
        name: What it makes, for messages.
        command: How it is run.
        path: The file that it makes.
        environment: Of its runs.
        whole: The bytes of an unbroken run.
        seconds: How long that run took after it had begun to write.
        wrong: What was wrong.
        finished: How many killed runs had finished before they were killed.
    """

    name: str
    command: list[str]
    path: Path
    environment: dict[str, str]
    whole: bytes = b''
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    finished: int = 0

    def start(self) -> subprocess.Popen:
        """Start a run, and return when it has begun to write or is over."""
        run = subprocess.Popen(
            self.command, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        lock = self.path.parent / f'{self.path.name}.lock'
        work = self.path.parent / f'{self.path.name}.work' / 'lock'
        said = f'process {run.pid} on'
        while run.poll() is None and not any(_says(file, said) for file in (lock, work)):
            time.sleep(0.005)
        return run

    def finish(self) -> float:
        """Run it to its end; return the seconds since it has begun to write."""
        run = self.start()
        started = time.monotonic()
        try:
            _, errors = run.communicate(timeout=FINISHED)
        except subprocess.TimeoutExpired:
            run.kill()
            errors = f'it did not finish in {FINISHED} s'
        if run.returncode:
            self.wrong.append(f'a run failed: {errors[-500:]}')
        return time.monotonic() - started

    def kill(self, after: float) -> None:
        """Start a run and kill it some seconds after it has begun to write."""
        run = self.start()
        time.sleep(after)
        try:
            workers = psutil.Process(run.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            workers = []
        self.finished += run.poll() is not None
        run.kill()
        run.communicate()
        if self.path.exists() and self.path.read_bytes() != self.whole:
            self.wrong.append('something else than the whole file lay under its name')
        left = psutil.wait_procs(workers, timeout=GONE)[1]
        if left:
            self.wrong.append(f'{len(left)} processes of a killed run were left after {GONE} s')

    def check(self) -> None:
        """Compare the file with that of the unbroken run, and look for others."""
        if not self.path.exists() or self.path.read_bytes() != self.whole:
            self.wrong.append('the file differs from that of an unbroken run')
        beside = sorted(set(os.listdir(self.path.parent)) - {self.path.name})
        if beside:
            self.wrong.append(f'left beside the file: {beside}')


def _says(file: Path, text: str) -> bool:
    try:
        return text in file.read_text()
    except OSError:
        return False


def tools(folder: Path, images: int) -> list[Tool]:
    """Make the data, and return the tools that run on them."""
    make = [sys.executable, str(ROOT / 'tools/dataset_converters/make_refshapes.py'), str(folder)]
    make += ['--variants', 'refshapes+', '--train', str(images), '--val', '1']
    subprocess.run([*make, '--testA', '1', '--testB', '1'], check=True, cwd=ROOT)
    environment = dict(os.environ, NEMO_MMSEG_CACHE=str(folder / 'cache'))
    environment['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    found = []
    for name, program in (('bank', 'mine_negatives.py'), ('tiles', 'misc/make_tile_store.py')):
        path = folder / name / f'{name}.safetensors'
        path.parent.mkdir()
        config = folder / f'{name}.py'
        changes = CHANGES[name].format(path=str(path))
        config.write_text(
            CONFIG_TEXT.format(config=str(CONFIG), root=f'{folder}/', changes=changes)
        )
        command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / program), str(config)]
        command += ['--workers', '2']
        if name == 'bank':
            command += ['--no-cache', '--batch-size', '8']
        found.append(Tool(name, command, path, environment))
    return found


def burst(tool: Tool, chance: random.Random, kills: int) -> None:
    """Kill some runs, finish one, and compare."""
    tool.path.unlink(missing_ok=True)
    for _ in range(kills):
        # As far as the whole run takes, at most: what was done is not done again.
        tool.kill(chance.uniform(0, tool.seconds))
    seconds = tool.finish()
    tool.check()
    state = '; '.join(tool.wrong) or 'all as it should be'
    print(f'{tool.name}: {kills} kills, then finished in {seconds:.1f} s; {state}', flush=True)


def main() -> int:
    """Make the data, kill, and count."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=30, help='of both tools (default 30)')
    parser.add_argument('--images', type=int, default=400, help='of the data (default 400)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default 0)')
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        made = tools(Path(temporary), args.images)
        for tool in made:
            tool.seconds = tool.finish()
            tool.whole = tool.path.read_bytes()
            tool.check()
            print(f'{tool.name}: {len(tool.whole)} bytes, unbroken in {tool.seconds:.1f} s')
        killed = 0
        while killed < args.kills:
            for tool in made:
                burst(tool, chance, BURST)
                killed += BURST
        wrong = [f'{tool.name}: {text}' for tool in made for text in tool.wrong]
        late = sum(tool.finished for tool in made)
    print(f'{killed} kills ({late} came when the run was over), {len(wrong)} things wrong')
    print('\n'.join(wrong))
    return bool(wrong)


if __name__ == '__main__':
    sys.exit(main())
