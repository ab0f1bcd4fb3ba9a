"""Train and evaluate a grid of configs: ``python projects/experiments/run_grid.py GRID``.

Every row of the grid is trained and evaluated with every seed. After each run the page
``WORK_DIR/<name>.md`` is written anew, with tables and plots of what is finished. The same command
continues a grid that was stopped: finished runs are skipped, and a killed training goes on from its
last checkpoint. ``--dry-run`` prints the plan, ``--page`` writes the page and runs nothing.

Several processes can share a grid if each gets its own ``--seeds``.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # works from a checkout that is not installed, too
from grid_page import write_grid_page  # noqa: E402

from nemo_mmseg.utils.atomic_write import write_text  # noqa: E402
from nemo_mmseg.utils.config import find_config  # noqa: E402
from nemo_mmseg.utils.run_tool import run_tool  # noqa: E402


@dataclass(frozen=True)
class Grid:
    """Rows times seeds, all trained for the same number of iterations.

    Attributes:
        name: Name of the page.
        rows: By name a dict with ``config`` (a file, or the name of a config) and, where needed,
            ``options``: dotted keys as ``--cfg-options`` takes them.
        baseline: Name of the row that the others are compared with.
        iterations: Iterations of every run.
        param_scheduler: Schedules of every run, counted in iterations.
        seeds: Seeds of every row.
        splits: Splits to evaluate. The page joins them.
        options: Dotted keys for all rows.
        by: Difficulties by which gains are shown, see :func:`nemo_mmseg.evaluation.slice_by`.
        question: What the experiment asks.
        data: Command that makes the data.
        cut: What was left out, and why.
        runs: Folder of the runs, inside the work folder; ``name`` by default. Grids with the same
            folder share equal runs.
        test_config: Config of the tests, such as ``on_mosaics_test.py``, below this folder; None
            for that of the run.
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
    runs: str | None = None
    test_config: str | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> Grid:
        """Read a grid such as ``grids/comparison.py``; its variables are the attributes.

        Raises:
            FileNotFoundError: There is no such file.
            TypeError: A variable is missing or unknown.
        """
        return cls(Path(path).stem, **Config.fromfile(path).to_dict())

    def cells(self, work_dir: str | os.PathLike) -> list[Cell]:
        """Return all runs, seed by seed, so that an early stop leaves whole comparisons."""
        runs = Path(work_dir) / (self.runs or self.name)
        return [
            Cell(self, row, seed, runs / folder_name(row) / f'seed_{seed}')
            for seed in self.seeds
            for row in self.rows
        ]


def folder_name(row: str) -> str:
    """Return the name of a row as that of a folder."""
    return re.sub(r'[^A-Za-z0-9.=_-]+', '_', row).strip('_')


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        grid: The grid.
        row: Name of the row.
        seed: The seed.
        folder: Where the run lies: ``cell.py`` (its config), ``train`` with logs and checkpoints,
            and the results.
    """

    grid: Grid
    row: str
    seed: int
    folder: Path

    def config(self) -> Config:
        """Return the config of the row, for the grid's iterations and the cell's seed."""
        row, end = self.grid.rows[self.row], self.grid.iterations
        cfg = Config.fromfile(find_config(row['config']))
        cfg.merge_from_dict({**self.grid.options, **row.get('options', {})})
        # No validation: the last checkpoint is evaluated, and none is chosen.
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=end)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.param_scheduler = self.grid.param_scheduler
        cfg.train_dataloader.sampler = dict(type='InfiniteReferringSampler', shuffle=True)
        checkpoint = dict(
            type='CheckpointHook', by_epoch=False, interval=max(1, end // 5), max_keep_ckpts=1
        )
        cfg.default_hooks = {**cfg.get('default_hooks', {}), 'checkpoint': checkpoint}
        cfg.log_processor = {**cfg.get('log_processor', {}), 'by_epoch': False}
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': self.seed}
        return cfg

    @property
    def results(self) -> Path:
        """Folder with one folder per split; results by a test config have a folder of their own."""
        test_config = self.grid.test_config
        return self.folder / Path(test_config).stem if test_config else self.folder

    @property
    def finished(self) -> bool:
        """Whether all results are there."""
        splits = self.grid.splits
        return all((self.results / split / 'metrics.json').is_file() for split in splits)

    @property
    def state(self) -> str:
        """``'finished'``, the newest checkpoint, or ``'not begun'``."""
        if self.finished:
            return 'finished'
        found = sorted(self.folder.glob('train/iter_*.pth'), key=lambda path: int(path.stem[5:]))
        return found[-1].stem if found else 'not begun'

    def run(self) -> None:
        """Train and evaluate, or do what of it is missing.

        Raises:
            ValueError: The folder holds a run with other settings.
            subprocess.CalledProcessError: A tool failed.
        """
        file, settings = self.folder / 'cell.py', self.config().pretty_text
        if file.is_file() and file.read_text() != settings:
            raise ValueError(f'{file} has other settings than the grid: delete {self.folder}')
        write_text(file, settings)
        train = self.folder / 'train'
        checkpoint = train / f'iter_{self.grid.iterations}.pth'
        if not checkpoint.is_file():
            run_tool('train.py', file, '--work-dir', train, '--resume')
        test_config = self.grid.test_config
        run_tool(
            'test.py', Path(__file__).with_name(test_config) if test_config else file, checkpoint,
            '--work-dir', self.results / 'test', '--out', self.results,
            '--splits', *self.grid.splits,
        )  # fmt: skip


def run_grid(
    grid: Grid, work_dir: str, command: str = '', seeds: Sequence[int] | None = None
) -> None:
    """Run what of a grid is not finished, and write the page after each run.

    Args:
        grid: The grid.
        work_dir: Folder of the runs and pages of all grids.
        command: Command line that runs the grid, for the page.
        seeds: Run these only; None runs all.
    """
    cells = [cell for cell in grid.cells(work_dir) if seeds is None or cell.seed in seeds]
    for cell in cells:
        cell.config()  # A wrong name shows before hours are spent on the others.
    for number, cell in enumerate(cells, 1):
        print(f'run {number} of {len(cells)}: {cell.row}, seed {cell.seed}', flush=True)
        if not cell.finished:
            cell.run()
            write_grid_page(grid, work_dir, command)


def plan_text(grid: Grid, work_dir: str) -> str:
    """Say of each run whether it is finished, and where it lies."""
    cells = grid.cells(work_dir)
    lines = [f'{cell.row}, seed {cell.seed}: {cell.state} ({cell.folder})' for cell in cells]
    left = sum(not cell.finished for cell in cells)
    summary = f'{left} of {len(cells)} runs of {grid.iterations} iterations remain'
    return '\n'.join([f'{grid.name}: {grid.question}', *lines, summary])


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train and evaluate a grid of configs')
    parser.add_argument('grid', help='file of the grid')
    parser.add_argument(
        '--work-dir',
        default='work_dirs/experiments',
        help='folder of the runs and pages of all grids (default: %(default)s)',
    )
    parser.add_argument('--seeds', type=int, nargs='+', help="run these seeds of the grid's only")
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--dry-run', action='store_true', help='print the plan and stop')
    what.add_argument('--page', action='store_true', help='write the page and stop')
    return parser.parse_args()


def main() -> None:
    """Print the plan, run, write."""
    args = parse_args()
    grid = Grid.from_file(args.grid)
    if args.dry_run:
        print(plan_text(grid, args.work_dir))
        return
    tool = 'projects/experiments/run_grid.py'
    command = shlex.join(['python', tool, args.grid, '--work-dir', args.work_dir])
    if not args.page:
        run_grid(grid, args.work_dir, command, args.seeds)
    print('page:', write_grid_page(grid, args.work_dir, command))


if __name__ == '__main__':
    main()
