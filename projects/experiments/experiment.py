"""Grids of runs: what they are, which of them are done, and running the rest."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiment_checks import check_splits, merge_options
from mmengine.config import Config
from mmengine.logging import print_log

from nemo_mmseg.evaluation.difficulty import check_by
from nemo_mmseg.utils.atomic_write import write_text
from nemo_mmseg.utils.config import find_config

RECORD = 'run.json'
# File in a run's folder that the process at work on it holds locked.
LOCK = 'lock'
_SET_BY_TRAINING = ('launcher', 'load_from', 'resume', 'work_dir')
# What Run.config() and Run.commands() set, whatever an option says.
_SET_HERE = (
    'default_hooks.checkpoint', 'launcher', 'log_processor.by_epoch', 'param_scheduler',
    'randomness.seed', 'resume', 'train_cfg', 'train_dataloader.sampler', 'work_dir',
)  # fmt: skip
_NAMES = re.compile(r'[^A-Za-z0-9.=_-]+')


@dataclass(frozen=True)
class Experiment:
    """A grid: rows times seeds, all trained for the same number of iterations.

    A single name in place of a tuple of names is a tuple of one.

    Args:
        name: What the page calls it.
        rows: By name a dict with ``config`` (a file, or the name of a config) and perhaps
            ``options``, dotted keys as ``--cfg-options`` takes them.
        baseline: Name of the row that the others are compared with.
        iterations: Of every run.
        param_scheduler: Schedules of every run, counted in iterations.
        seeds: Of every row.
        splits: Splits that are evaluated; the page is about all of them together.
        options: Dotted keys for all rows.
        by: Difficulties by which gains are shown, see :func:`nemo_mmseg.evaluation.slice_by`.
        question: What the experiment asks, as text.
        data: Command that makes the data, for the page.
        cut: What was left out to stay inside the budget, as text.
        seconds_per_iteration: Measured, for the estimate of the time.
        seconds_per_test: The same of an evaluation.
        cores: CPU cores the measured runs used.
        runs: Folder of the runs, inside that of the experiments; by default ``name``. Experiments
            with the same folder share equal runs.

    Raises:
        ValueError: Something is missing, given twice or unknown. Configs, their options and the
            names of splits are looked at later, by :meth:`Run.check`.
    """

    name: str
    rows: dict[str, dict]
    baseline: str
    iterations: int
    param_scheduler: list[dict]
    seeds: tuple[int, ...] = (0, 1, 2)
    splits: tuple[str, ...] = ('val',)
    options: dict[str, Any] = field(default_factory=dict)
    by: tuple[str, ...] = ('distractors',)
    question: str = ''
    data: str = ''
    cut: tuple[str, ...] = ()
    seconds_per_iteration: float = 1.0
    seconds_per_test: float = 60.0
    cores: int = 1
    runs: str | None = None

    def __post_init__(self) -> None:
        for key in ('splits', 'by', 'cut'):
            value = getattr(self, key)
            names = (value,) if isinstance(value, str) else tuple(value)
            object.__setattr__(self, key, names)  # the class is frozen
        if not isinstance(self.seeds, (list, tuple, range)) or not all(
            type(seed) is int and seed >= 0 for seed in self.seeds
        ):
            raise ValueError(f'seeds={self.seeds!r} is no list of whole numbers from 0 on')
        object.__setattr__(self, 'seeds', tuple(self.seeds))
        if self.baseline not in self.rows:
            raise ValueError(f'baseline={self.baseline!r} is none of the rows {list(self.rows)}')
        if self.iterations < 1 or not self.seeds or not self.splits:
            raise ValueError('an experiment needs iterations, seeds and splits')
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f'a seed is given twice: {self.seeds}')
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f'a split is given twice: {self.splits}')
        check_by(self.by)
        for name, row in self.rows.items():
            if 'config' not in row or set(row) - {'config', 'options'}:
                raise ValueError(f'row {name!r} needs config, and options if any; it has {row}')
        folders = [folder_name(name) for name in self.rows]
        if len(set(folders)) < len(folders):
            raise ValueError(f'the names of two rows give the same folder: {list(self.rows)}')

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> Experiment:
        """Read a file such as ``projects/experiments/grids/comparison.py``.

        Args:
            path: The file; its name without ending is the experiment's ``name``, its variables are
                the other arguments.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It lacks a variable, or has one that no experiment knows.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'there is no experiment {path}')
        values = Config.fromfile(path).to_dict()
        try:
            return cls(path.stem, **values)
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path}: {error}') from None

    def cells(self, root: str | os.PathLike) -> list[Run]:
        """All runs, seed by seed, so that an early stop leaves whole comparisons.

        Args:
            root: Folder of all experiments.
        """
        runs = Path(root) / (self.runs or self.name)
        return [
            Run(self, row, seed, runs / folder_name(row) / f'seed_{seed}')
            for seed in self.seeds
            for row in self.rows
        ]


def folder_name(row: str) -> str:
    """The name of a row as that of a folder."""
    return _NAMES.sub('_', row).strip('_') or 'row'


@dataclass(frozen=True)
class Run:
    """One run of a grid.

    Args:
        experiment: The grid.
        row: Name of its row.
        seed: Its seed.
        folder: Where it lies: config, checkpoints, and one folder a split with its results.
    """

    experiment: Experiment
    row: str
    seed: int
    folder: Path

    def config(self) -> Config:
        """The config of the run: the row's, for the experiment's iterations and seed.

        Raises:
            ValueError: The row names no config, or options that it does not have or that the
                experiment sets itself.
        """
        experiment, row = self.experiment, self.experiment.rows[self.row]
        try:
            cfg = Config.fromfile(find_config(row['config']))
            options = {**experiment.options, **row.get('options', {})}
            for key in flat(options):  # rows that differ in these alone would be equal runs
                if f'{key}.'.startswith(tuple(f'{name}.' for name in _SET_HERE)):
                    raise ValueError(f'the option {key!r} is set by the experiment itself')
            merge_options(cfg, options)
        except (LookupError, OSError, TypeError, ValueError) as error:
            raise ValueError(f'row {self.row!r}: {error}') from error
        end = experiment.iterations
        # No validation: nothing is chosen by it, and the last checkpoint is evaluated.
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=end, val_interval=end + 1)
        cfg.param_scheduler = experiment.param_scheduler
        cfg.train_dataloader.sampler = dict(type='InfiniteReferringSampler', shuffle=True)
        checkpoint = dict(
            type='CheckpointHook', by_epoch=False, interval=max(1, end // 5), max_keep_ckpts=1
        )
        cfg.default_hooks = {**cfg.get('default_hooks', {}), 'checkpoint': checkpoint}
        cfg.log_processor = {**cfg.get('log_processor', {}), 'by_epoch': False}
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': self.seed}
        return cfg

    def digest(self) -> str:
        """What tells the run's settings from others'."""
        settings = self.config().to_dict()
        text = json.dumps(settings, sort_keys=True, default=repr)
        return hashlib.sha256(f'{text} {self.experiment.splits}'.encode()).hexdigest()

    @property
    def record(self) -> dict:
        """What is noted of the run: ``digest`` and ``seconds``; empty before its start."""
        file = self.folder / RECORD
        return json.loads(file.read_text()) if file.is_file() else {}

    @property
    def seconds(self) -> dict[str, float]:
        """How long training and evaluation took, as far as they are done."""
        return self.record.get('seconds', {})

    def note(self, **changes: Any) -> None:
        """Add to the record."""
        write_text(self.folder / RECORD, json.dumps({**self.record, **changes}, indent=1) + '\n')

    def results(self) -> list[Path]:
        """The results files of the splits; the last ones that an evaluation writes."""
        return [self.folder / split / 'metrics.json' for split in self.experiment.splits]

    def check(self) -> None:
        """Refuse what cannot be run, and a folder in which a run of other settings lies.

        Raises:
            ValueError: The row has no such config, its config no such option, its test data set no
                such split, or the folder holds another run.
        """
        check_splits(self.config(), self.experiment.splits)
        difference = self.difference()
        if difference:
            raise ValueError(
                f'{self.folder} holds a run of other settings than row {self.row!r} asks for now '
                f'({difference}): delete it, or name another --work-dir'
            )

    def difference(self) -> str:
        """In which settings the run in the folder differs from what is asked for now; '' if not."""
        known, file = self.record.get('digest'), self.folder / 'config.py'
        if known is None or known == self.digest():
            return ''
        if not file.is_file():
            return 'which ones is not known'
        then, now = (flat(c.to_dict()) for c in (Config.fromfile(file), self.config()))
        # The file is train.py's, with what that sets, also when it resumes.
        keys = [key for key in {**then, **now} if now.get(key) or key not in _SET_BY_TRAINING]
        keys = [key for key in keys if then.get(key) != now.get(key)]
        texts = [f'{key}={now.get(key)!r}, not {then.get(key)!r}' for key in keys]
        return '; '.join(texts[:3] + ['...'] * (len(texts) > 3)) or 'other splits'

    @property
    def finished(self) -> bool:
        """Whether all results are there."""
        return all(file.is_file() for file in self.results())

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint, which is evaluated."""
        return self.folder / f'iter_{self.experiment.iterations}.pth'

    def commands(self) -> list[list[str]]:
        """The command lines of training and evaluation."""
        config, folder = str(self.folder / 'config.py'), str(self.folder)
        python = [sys.executable, '-W', 'ignore']
        train = ['train.py', config, '--work-dir', folder, '--resume']
        test = ['test.py', config, str(self.checkpoint), '--work-dir', f'{folder}/test']
        test += ['--out', folder, '--splits', *self.experiment.splits]
        return [[*python, str(tool_path(name)), *rest] for name, *rest in (train, test)]


def flat(settings: Any, prefix: str = '') -> dict[str, Any]:
    """Nested settings by dotted keys, as ``--cfg-options`` takes them."""
    if not isinstance(settings, (dict, list, tuple)) or not settings:
        return {prefix: settings}
    items = settings.items() if isinstance(settings, dict) else enumerate(settings)
    found = {}
    for key, value in items:
        found |= flat(value, f'{prefix}.{key}' if prefix else str(key))
    return found


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Keep the folder of a run to this process, if no other one has it.

    The kernel frees the lock when the process ends, however it ends, but not before the programs
    that it started: a trainer that outlives a killed :func:`run_experiment` keeps its folder.

    Args:
        folder: Made if missing.

    Yields:
        Whether the folder is ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            print_log(f'{folder} is left to {file.read().strip() or "another process"}', 'current')
            yield False
            return
        os.set_inheritable(file.fileno(), True)
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        file.flush()
        yield True


def tool_path(name: str) -> Path:
    """A program of ``tools/``, of a checkout or of an installed wheel."""
    package = Path(__file__).resolve().parents[2] / 'nemo_mmseg'
    for folder in (package.parent / 'tools', package / '.mim' / 'tools'):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f'there is no tools/{name} beside {package}')


def call(command: Sequence[str]) -> None:
    """Run a command line; the checkout is found though it be not installed, locks are handed on.

    Raises:
        RuntimeError: It failed.
    """
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
    environment = {**os.environ, 'PYTHONPATH': path}
    done = subprocess.run(command, env=environment, close_fds=False, check=False)
    if done.returncode:
        raise RuntimeError(
            f'exit status {done.returncode} of {shlex.join(map(str, command))}; the same command '
            'continues the experiment once this is mended'
        )


def run_cell(run: Run, execute: Callable[[Sequence[str]], None] = call) -> bool:
    """Train and evaluate one run, or what of it is missing.

    Args:
        run: The run.
        execute: Runs a command line. Defaults to a program of its own.

    Returns:
        Whether anything was to do, and no other process is at it.

    Raises:
        ValueError: The folder holds a run of other settings.
        RuntimeError: A command failed.
    """
    run.check()
    if run.finished:
        return False
    with claim(run.folder) as ours:
        run.check()
        if not ours or run.finished:
            return False
        run.note(digest=run.digest())
        write_text(run.folder / 'config.py', run.config().pretty_text)
        train, test = run.commands()
        for name, command in (('train', train), ('test', test)):
            if name == 'train' and run.checkpoint.is_file():
                continue
            start = time.time()
            execute(command)
            # A run that was killed and continued counts its last part only.
            run.note(seconds={**run.seconds, name: round(time.time() - start, 1)})
    if not run.finished:
        raise RuntimeError(f'the commands ended well, but wrote no {run.results()[0]}')
    return True


def run_experiment(
    experiment: Experiment,
    root: str | os.PathLike,
    execute: Callable[[Sequence[str]], None] = call,
    after_run: Callable[[], None] = lambda: None,
) -> None:
    """Run what of a grid is neither done nor at work in another process.

    Args:
        experiment: The grid.
        root: Folder of all experiments.
        execute: See :func:`run_cell`.
        after_run: Called after each run, e.g. to write the page anew.
    """
    runs = experiment.cells(root)
    for run in runs:
        run.check()  # before hours are spent on the others
    for number, run in enumerate(runs, 1):
        print_log(f'run {number} of {len(runs)}: {run.row}, seed {run.seed}', 'current')
        if run_cell(run, execute):
            after_run()


def plan_text(experiment: Experiment, root: str | os.PathLike) -> str:
    """What is done, what remains, and about how long it takes.

    Args:
        experiment: The grid.
        root: Folder of all experiments.
    """
    each = experiment.iterations * experiment.seconds_per_iteration + experiment.seconds_per_test
    lines, left = [f'{experiment.name}: {experiment.question}'], 0
    for run in experiment.cells(root):
        run.check()
        part = sorted(run.folder.glob('iter_*.pth'), key=lambda p: int(p.stem[5:]))
        state = 'finished' if run.finished else part[-1].stem if part else 'not begun'
        left += not run.finished
        lines.append(f'  {run.row}, seed {run.seed}: {state} ({run.folder})')
    hours = left * each / 3600
    lines.append(
        f'{left} of {len(lines) - 1} runs of {experiment.iterations} iterations remain: about '
        f'{hours:.1f} hours on {experiment.cores} cores, {hours * experiment.cores:.1f} CPU hours '
        f'({each / 60:.1f} minutes a run)'
    )
    return '\n'.join([*lines, *(f'cut: {text}' for text in experiment.cut)])
