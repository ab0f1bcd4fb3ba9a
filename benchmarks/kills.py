"""Kill mining and the making of tile stores at random, and look at what is left each time.

    python benchmarks/kills.py                      # 30 kills, a few minutes on two cores
    python benchmarks/kills.py --kills 100 --seed 1

It runs ``tools/mine_negatives.py`` and ``tools/misc/make_tile_store.py``, with two workers, on
small RefShapes in a temporary folder. In a burst some runs are killed by SIGKILL, one after the
other, at random moments after the tool has begun to write; then a run finishes. After each kill,
nothing may lie under the final name, or the whole file, and no process of the killed run may be
left. After each finish, the file must be byte for byte that of an unbroken run, and nothing else
may lie beside it. One line per burst, then the counts; exit code 1 if anything was wrong.

The tools run in forks of this process: to import what they need takes longer than what they do.
"""

from __future__ import annotations

import argparse
import os
import random
import runpy
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# What the tools import, so that it is there in each fork.
import mmseg.models  # noqa: E402, F401
import open_clip  # noqa: E402, F401

import nemo_mmseg.engine  # noqa: E402, F401
import nemo_mmseg.mining  # noqa: E402, F401
from nemo_mmseg.refshapes import make_refshapes  # noqa: E402

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
        command: The program and its arguments.
        path: The file that it makes.
        whole: The bytes of an unbroken run.
        seconds: How long that run took after it had begun to write.
        wrong: What was wrong.
    """

    name: str
    command: list[str]
    path: Path
    whole: bytes = b''
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def start(self) -> BaseProcess:
        """Start a run, and return when it has begun to write or is over."""
        log = self.path.parent.parent / f'{self.name}.log'
        run = get_context('fork').Process(target=run_tool, args=(self.command, log))
        run.start()
        lock = self.path.parent / f'{self.path.name}.lock'
        work = self.path.parent / f'{self.path.name}.work' / 'lock'
        said = f'process {run.pid} on'
        while run.is_alive() and not any(_says(file, said) for file in (lock, work)):
            time.sleep(0.005)
        return run

    def finish(self) -> float:
        """Run it to its end; return the seconds since it has begun to write."""
        run = self.start()
        started = time.monotonic()
        run.join(FINISHED)
        if run.exitcode != 0:
            run.kill()
            log = self.path.parent.parent / f'{self.name}.log'
            self.wrong.append(f'a run failed or did not end: {log.read_text()[-500:]}')
        return time.monotonic() - started

    def kill(self, after: float) -> bool:
        """Start a run and kill it some seconds after it has begun to write, unless it is over."""
        run = self.start()
        started = time.monotonic()
        run.join(after)
        if not run.is_alive():
            self.seconds = min(self.seconds, time.monotonic() - started)
            return False
        workers = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        run.join()
        if self.path.exists() and self.path.read_bytes() != self.whole:
            self.wrong.append('something else than the whole file lay under its name')
        left = psutil.wait_procs(workers, timeout=GONE)[1]
        if left:
            self.wrong.append(f'{len(left)} processes of a killed run were left after {GONE} s')
        return True

    def check(self) -> None:
        """Compare the file with that of the unbroken run, and look for others."""
        if not self.path.exists() or self.path.read_bytes() != self.whole:
            self.wrong.append('the file differs from that of an unbroken run')
        beside = sorted(set(os.listdir(self.path.parent)) - {self.path.name})
        if beside:
            self.wrong.append(f'left beside the file: {beside}')


def run_tool(command: list[str], log: Path) -> None:
    """Be one of the tools; its output goes into a file."""
    with log.open('w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = command
        try:
            runpy.run_path(command[0], run_name='__main__')
        except Exception:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def _says(file: Path, text: str) -> bool:
    try:
        return text in file.read_text()
    except OSError:
        return False


def tools(folder: Path, images: int) -> list[Tool]:
    """Make the data, and return the tools that run on them."""
    make_refshapes(folder, 'refshapes+', dict(train=images, val=1, testA=1, testB=1), workers=2)
    found = []
    for name, program in (('bank', 'mine_negatives.py'), ('tiles', 'misc/make_tile_store.py')):
        path = folder / name / f'{name}.safetensors'
        path.parent.mkdir()
        config = folder / f'{name}.py'
        changes = CHANGES[name].format(path=str(path))
        config.write_text(
            CONFIG_TEXT.format(config=str(CONFIG), root=f'{folder}/', changes=changes)
        )
        command = [str(ROOT / 'tools' / program), str(config), '--workers', '2']
        if name == 'bank':
            command += ['--no-cache', '--batch-size', '8']
        found.append(Tool(name, command, path))
    return found


def burst(tool: Tool, chance: random.Random, kills: int) -> None:
    """Kill some runs, finish one, and compare."""
    tool.path.unlink(missing_ok=True)
    done = late = 0
    while done < kills:
        # As far as the whole run takes, at most: what was done is not done again.
        if tool.kill(chance.uniform(0, tool.seconds)):
            done += 1
        else:
            late += 1
            tool.check()
            tool.path.unlink()
    seconds = tool.finish()
    tool.check()
    state = '; '.join(tool.wrong) or 'all as it should be'
    print(
        f'{tool.name}: {kills} kills ({late} runs were over before), then finished in '
        f'{seconds:.1f} s; {state}',
        flush=True,
    )


def main() -> int:
    """Make the data, kill, and count."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=30, help='of both tools (default 30)')
    parser.add_argument('--images', type=int, default=128, help='of the data (default 128)')
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
    print(f'{killed} kills, {len(wrong)} things wrong')
    print('\n'.join(wrong))
    return bool(wrong)


if __name__ == '__main__':
    sys.exit(main())
