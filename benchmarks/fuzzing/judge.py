"""Runs mutations in forked processes that may die, and says what became of each."""

from __future__ import annotations

import faulthandler
import os
import pickle
import random
import resource
import select
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RIGHT, NAMED, ELSE = 'right', 'named error', 'anything else'
MEMORY = 1.5 * 2**30
SECONDS = 10  # of the process's own time; a sound file takes a twentieth of one
WALL = 120
FAILED = 3  # exit code where the fuzzer itself fails, which is reported
LONGEST = 2000  # characters of a message


@dataclass
class Case:
    """A mutated file, and what to do with it.

    Attributes:
        what: What was changed, in words.
        use: Does what the package does with the file, and returns what it read.
        wrong: Compares that with an independent reading; returns what is wrong, or None.
        files: Paths or names of which a message must have one.
        about: Texts of which a message must have one, e.g. ids and fields; none for any message.
        sound: Whether the file is certainly sound, so that it must be read.
        after: Called with the error, or None; looks further and returns what is wrong, or None.
        notes: Remarks on what was read, filled by ``wrong``.
    """

    what: str
    use: Callable[[], Any]
    wrong: Callable[[Any], str | None]
    files: Sequence[str]
    about: Sequence[str] = ()
    sound: Callable[[], bool] = lambda: False
    after: Callable[[Exception | None], str | None] = lambda error: None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Attributes:
        name: Its name.
        share: How many of 1,000 mutations.
        make: Given a fresh folder, the mutation's generator and its seed: writes the files.
        prepare: Makes what all mutations start from, once.
        count: Number of cases that are all run, where they are listed; 0 where they are drawn.
    """

    name: str
    share: int
    make: Callable[[Path, random.Random, int], Case]
    prepare: Callable[[], None] = lambda: None
    count: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation."""

    kind: str
    seed: int
    result: str
    what: str
    detail: str


def allowed_errors() -> tuple[type[Exception], ...]:
    """Return the documented kinds of errors."""
    from nemo_mmseg.negatives.bank import BankError, UnknownSentenceError
    from nemo_mmseg.negatives.tile_store import TileStoreError

    return ValueError, OSError, BankError, TileStoreError, UnknownSentenceError


def judge(kind: Kind, seed: int, folder: Path) -> Outcome:
    """Make one mutation in a fresh folder, use it, and judge."""
    folder.mkdir(parents=True)
    case = kind.make(folder, random.Random(f'{kind.name}:{seed}'), seed)
    before = _listing(folder)
    error: Exception | None = None
    try:
        answer = case.use()
        problem = case.wrong(answer)
        result, detail = RIGHT, '; '.join(case.notes)
    except allowed_errors() as raised:
        error, result, detail = raised, NAMED, f'{type(raised).__name__}: {str(raised)[:LONGEST]}'
        problem = _unnamed(raised, case)
        if problem is None and case.sound():
            problem = f'a sound file is refused: {detail}'
    except BaseException as raised:
        where = traceback.extract_tb(raised.__traceback__)[-1]
        place = f'{Path(where.filename).name}:{where.lineno}'
        problem = f'{type(raised).__name__} at {place}: {str(raised)[:300]}'
        error, result, detail = raised, ELSE, ''
    if problem is None:
        problem = case.after(error)
    stray = {name for name in _listing(folder) - before if name.partition('/')[0] != 'made'}
    if problem is None and stray:
        problem = f'files are left: {sorted(stray)}'
    if problem is not None:
        return Outcome(kind.name, seed, ELSE, case.what, problem)
    return Outcome(kind.name, seed, result, case.what, detail)


def _unnamed(error: Exception, case: Case) -> str | None:
    text, shown = str(error), f'{type(error).__name__}: {str(error)[:300]}'
    if len(text) > LONGEST:
        return f'a message of {len(text)} characters: {shown}'
    if isinstance(error, UnicodeError):
        return f'a bare {shown}'
    if not any(name in text for name in case.files):
        return f'no file is named: {shown}'
    unread = 'pickle' in text.replace(case.files[0], '') or 'JSON' in text  # as a whole
    if case.about and not unread and not any(word in text for word in case.about):
        return f'neither id nor field is named: {shown}'
    return None


def _listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*')}


def run(
    jobs: Sequence[tuple[Kind, int]], folder: Path, keep: bool = False, batch: int = 40
) -> Iterator[Outcome]:
    """Judge mutations in forked processes, some in each.

    What kills its process, or takes too long or too much memory, is an outcome as well; the rest
    of the batch goes on in another process.
    """
    waiting = list(jobs)
    while waiting:
        done = 0
        for outcome in _fork(waiting[:batch], folder, keep):
            done += 1
            yield outcome
        waiting = waiting[done:]


def _fork(jobs: list[tuple[Kind, int]], folder: Path, keep: bool) -> Iterator[Outcome]:
    """Judge jobs in one process until one kills it, which is the last that is yielded."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _serve(jobs, folder, keep, writing)
    os.close(writing)
    done, content, started = 0, b'', (time.monotonic(), 0.0)
    reason = ''
    while True:
        ready, _, _ = select.select([reading], [], [], 0.03)
        if ready:
            part = os.read(reading, 2**16)
            content += part
            while len(content) >= 8 and len(content) >= 8 + (size := int.from_bytes(content[:8])):
                yield pickle.loads(content[8 : 8 + size])  # our own child's
                content, done = content[8 + size :], done + 1
                started = time.monotonic(), _own_seconds(child)
            if not part:
                break
        elif _memory(child) > MEMORY + _memory(os.getpid()):
            reason = f'more than {MEMORY / 2**30:.1f} GB of memory'
        elif _own_seconds(child) - started[1] > SECONDS:
            reason = f'more than {SECONDS} s'
        elif time.monotonic() - started[0] > WALL:
            reason = f'hangs ({WALL} s)'
        if reason:
            os.kill(child, signal.SIGKILL)
            break
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    if done < len(jobs) and status != FAILED << 8:
        if not reason:
            killed = os.WIFSIGNALED(status)
            reason = signal.Signals(os.WTERMSIG(status)).name if killed else f'exit code {status}'
        kind, seed = jobs[done]
        what = folder / f'{kind.name}-{seed}'
        if not keep:
            shutil.rmtree(what, ignore_errors=True)
        yield Outcome(kind.name, seed, ELSE, 'the process ends', reason)


def _serve(jobs: list[tuple[Kind, int]], folder: Path, keep: bool, writing: int) -> None:
    """Judge jobs and report each; ends the process."""
    try:
        faulthandler.disable()  # a crash is reported by the parent
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        warnings.simplefilter('ignore')
        for kind, seed in jobs:
            place = folder / f'{kind.name}-{seed}'
            outcome = judge(kind, seed, place)
            if not keep:
                shutil.rmtree(place, ignore_errors=True)
            content = pickle.dumps(outcome)
            os.write(writing, len(content).to_bytes(8) + content)
        os._exit(0)
    except BaseException:
        content = pickle.dumps(Outcome(kind.name, seed, ELSE, 'THE FUZZER', traceback.format_exc()))
        os.write(writing, len(content).to_bytes(8) + content)
        os._exit(FAILED)


def _memory(process: int) -> float:
    """Bytes in memory."""
    with open(f'/proc/{process}/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def _own_seconds(process: int) -> float:
    """Seconds on a processor."""
    with open(f'/proc/{process}/stat') as file:
        fields = file.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
