"""The whole way on a small data set: data, bank, training with NeMo, evaluation, report page.

``python projects/demo/demo.py`` runs the commands that a user would run, prints their times and a
table of results, and writes ``work_dirs/demo/index.html``. ``--compare`` trains the same network on
shuffled expressions, finds the best answer that knows only the category, and prints all three side
by side.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config
from mmseg.registry import TRANSFORMS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # works from a checkout that is not installed, too
from nemo_mmseg.datasets.transforms.nemo.nemo_mosaic import NeMoMosaic  # noqa: E402
from nemo_mmseg.utils.run_tool import run_tool  # noqa: E402

CONFIG = ROOT / 'configs/refshapes/cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256.py'
VARIANT = 'refshapes+'
SPLITS = ('val', 'testA', 'testB')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default='data/refshapes', help='folder of the data set')
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder of the results')
    parser.add_argument('--config', default=str(CONFIG), help='config to train')
    parser.add_argument('--compare', action='store_true', help='run the baselines')
    parser.add_argument('--train-images', type=int, default=1300, help='size of the train split')
    parser.add_argument('--test-images', type=int, default=200, help='size of each other split')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='passed on to the tools, as KEY=VALUE'
    )
    return parser.parse_args()


class Steps:
    """Run the commands of the demo and keep their times."""

    def __init__(self, args: argparse.Namespace, config: str) -> None:
        self.config = config
        self.seconds: dict[str, float] = {}
        self.options = ['--cfg-options', f'train_dataloader.dataset.data_root={args.data}/']
        self.options += [f'{s}_dataloader.dataset.data_root={args.data}/' for s in ('val', 'test')]
        # The second transform is the mosaic.
        bank = f'{args.data}/banks/{VARIANT}.safetensors'
        self.options += [f'train_dataloader.dataset.pipeline.1.bank.path={bank}']
        self.options += args.cfg_options

    def run(self, name: str, tool: str, *arguments: str, options: bool = True) -> None:
        """Run a program of this checkout; stop the demo if it fails."""
        print(f'\n== {name}: python {tool} {" ".join(arguments)}', flush=True)
        start = time.time()
        try:
            run_tool(ROOT / tool, *arguments, *(self.options if options else []))
        except subprocess.CalledProcessError as error:
            sys.exit(f'demo: step "{name}" failed with exit status {error.returncode}')
        self.seconds[name] = time.time() - start
        print(f'== {name}: {self.seconds[name]:.0f} s', flush=True)

    def train_and_test(self, work_dir: str) -> None:
        """Train, and evaluate the last checkpoint on the splits."""
        self.run('train', 'tools/train.py', self.config, '--work-dir', work_dir)
        checkpoint = (Path(work_dir) / 'last_checkpoint').read_text().strip()
        self.run(
            'evaluate', 'tools/test.py', self.config, checkpoint, '--work-dir', f'{work_dir}/test',
            '--out', work_dir, '--splits', *SPLITS,
        )  # fmt: skip


def scores_of(work_dir: str) -> dict[str, dict[str, float]]:
    """Read the scores by split, as ``tools/test.py --splits`` wrote them."""
    return {s: json.loads((Path(work_dir) / s / 'metrics.json').read_text()) for s in SPLITS}


def print_table(rows: dict[str, dict[str, dict[str, float]]], keys: tuple[str, ...]) -> None:
    """Print scores: a line per network, a column per split and measure."""
    from prettytable import PrettyTable

    table = PrettyTable(['', *(f'{split} {key}' for split in SPLITS for key in keys)])
    for name, scores in rows.items():
        values = [scores[split].get(key) for split in SPLITS for key in keys]
        table.add_row([name, *('' if v is None else f'{v:.2f}' for v in values)])
    print(table, flush=True)


def demo(args: argparse.Namespace) -> None:
    """Make data and bank, train, evaluate, write the page."""
    mosaic = Config.fromfile(args.config).train_dataloader.dataset.pipeline[1]
    if TRANSFORMS.get(mosaic.type) is not NeMoMosaic:
        sys.exit(f'{args.config}: the demo needs a config whose second transform is a NeMoMosaic')
    steps = Steps(args, args.config)
    sizes = ['--train', str(args.train_images)]
    for split in SPLITS:
        sizes += [f'--{split}', str(args.test_images)]
    make = 'tools/dataset_converters/make_refshapes.py'
    steps.run('data', make, args.data, '--variants', VARIANT, *sizes, options=False)
    steps.run('mine', 'tools/mine_negatives.py', args.config)
    steps.train_and_test(args.work_dir)
    steps.run('report', 'projects/demo/report.py', args.config, args.work_dir)
    print_table({'CRIS with NeMo': scores_of(args.work_dir)}, ('oIoU', 'mIoU', 'Pr@0.5'))
    total = sum(steps.seconds.values())
    print(' '.join(f'{name} {value:.0f} s,' for name, value in steps.seconds.items()))
    print(f'demo: {total / 60:.1f} minutes; open {Path(args.work_dir) / "index.html"}')


def compare(args: argparse.Namespace) -> None:
    """Compare the network with one trained on shuffled expressions and with the category alone."""
    from baselines import category_baseline, shuffle_expressions

    if not (Path(args.work_dir) / 'val' / 'metrics.json').is_file():
        sys.exit(f'run the demo first: {args.work_dir} has no results')
    refs = f'{args.data}/{VARIANT}/refs(unc).p'
    instances = f'{args.data}/{VARIANT}/instances.json'
    shuffled = f'{VARIANT}-shuffled/refs(unc).p'
    shuffle_expressions(refs, f'{args.data}/{shuffled}')
    work_dir = f'{args.work_dir}_shuffled'
    bank = f'{args.data}/banks/{VARIANT}-shuffled.safetensors'
    Path(bank).unlink(missing_ok=True)  # it may be of other data
    args.cfg_options += [
        f'train_dataloader.dataset.split_file={shuffled}',
        f'train_dataloader.dataset.pipeline.1.bank.path={bank}',
    ]
    Steps(args, args.config).train_and_test(work_dir)
    rows = {
        'CRIS with NeMo': scores_of(args.work_dir),
        'the same, shuffled expressions': scores_of(work_dir),
        'category alone, best answer': {
            split: category_baseline(refs, instances, split) for split in SPLITS
        },
    }
    print_table(rows, ('oIoU', 'mIoU'))


if __name__ == '__main__':
    arguments = parse_args()
    compare(arguments) if arguments.compare else demo(arguments)
