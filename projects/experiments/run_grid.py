"""Run a small grid: `python projects/experiments/run_grid.py GRID`.

Trains and evaluates each row of the experiment with each seed, and writes a page of tables and
plots, `WORK_DIR/<name>.html` and `.md`, anew after every run. The same command continues where it
was stopped: finished runs are kept, a killed one goes on from its last checkpoint. Started twice,
e.g. with `CUDA_VISIBLE_DEVICES=0` and `=1`, or each with `OMP_NUM_THREADS=1`, the processes share
the runs. `--dry-run` prints what remains and about how long it takes, `--page` writes the page of
what is there, and says which of it was made with other settings than the configs give now.
"""

import argparse
import shlex

from experiment import Experiment, plan_text, run_experiment
from experiment_page import write_experiment_page

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Run a small grid of trainings')
    parser.add_argument('experiment', help='file of the experiment')
    parser.add_argument(
        '--work-dir',
        default='work_dirs/experiments',
        help='folder of the runs and pages of all experiments, default: work_dirs/experiments',
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--dry-run', action='store_true', help='print the plan and stop')
    what.add_argument('--page', action='store_true', help='write the page of the finished runs')
    return parser.parse_args()


def main() -> None:
    """Print the plan, run, write."""
    args = parse_args()
    experiment = Experiment.from_file(args.experiment)
    if not args.page:
        print(plan_text(experiment, args.work_dir), flush=True)
    if args.dry_run:
        return
    command = [
        'python',
        'projects/experiments/run_grid.py',
        args.experiment,
        '--work-dir',
        args.work_dir,
    ]

    def write() -> None:
        pages = write_experiment_page(experiment, args.work_dir, shlex.join(command))
        print('pages:', *pages, flush=True)

    if not args.page:
        run_experiment(experiment, args.work_dir, after_run=write)
    write()


if __name__ == '__main__':
    main()
