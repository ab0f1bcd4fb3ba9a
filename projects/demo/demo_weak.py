"""Weak supervision on a small data set: TRIS, whole, learned from expressions alone.

``python projects/demo/demo_weak.py`` generates RefShapes and runs all stages
(``tools/train_tris.py``), which print their scores and write ``work_dirs/demo_weak/index.html``.
``--compare`` adds what one can score without text, CLIP's Grad-CAM, the same network on annotated
masks, and TRIS on shuffled expressions. ``--seeds 0 1 2`` trains all of it with each seed, and
prints means and standard deviations. A run that was stopped goes on with the same command.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / 'tools' / 'analysis_tools'),
]  # works from a checkout that is not installed, too
from baselines import centre_guess, empty_sentence_guess, shuffle_expressions  # noqa: E402
from tris_page import print_scores  # noqa: E402

from nemo_mmseg.pseudo_labels.make import data_set_of  # noqa: E402
from nemo_mmseg.utils.atomic_write import write_text  # noqa: E402
from nemo_mmseg.utils.run_tool import run_tool  # noqa: E402

PIPELINE = 'tris_refshapes-plus'
VARIANT = 'refshapes+'
SPLITS = ('val', 'testB')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default='data/refshapes_weak', help='folder of the data set')
    parser.add_argument('--work-dir', default='work_dirs/demo_weak', help='folder of the results')
    parser.add_argument('--compare', action='store_true', help='score what TRIS is compared with')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='seeds of the trainings')
    parser.add_argument('--train-images', type=int, default=320, help='size of the train split')
    parser.add_argument('--test-images', type=int, default=100, help='size of each other split')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='settings of the pipeline, as KEY=VALUE'
    )
    return parser.parse_args()


def train(args: argparse.Namespace, seed: int, work_dir: Path, *options: str) -> dict:
    """Run all stages of TRIS, and return the scores by name of what is scored and split."""
    settings = [f'data_root={args.data}', f'seed={seed}', *args.cfg_options, *options]
    compare = ['--compare'] if args.compare and not options else []
    run_tool(
        'train_tris.py', PIPELINE, '--work-dir', work_dir, *compare, '--cfg-options', *settings
    )
    return json.loads((work_dir / 'scores.json').read_text())


def compare(args: argparse.Namespace, seed: int, work_dir: Path) -> dict:
    """Train on shuffled expressions, guess without text; return these scores."""
    shuffled = f'{VARIANT}-shuffled/refs(unc).p'
    shuffle_expressions(f'{args.data}/{VARIANT}/refs(unc).p', f'{args.data}/{shuffled}')
    options = [
        f'{stage}.options.{loader}_dataloader.dataset.split_file={shuffled}'
        for stage in ('stage1', 'stage2')
        for loader in ('train', 'val', 'test')
    ]
    control = train(args, seed, work_dir.with_name(f'{work_dir.name}_shuffled'), *options)
    rows = {f'{name}, shuffled expressions': scores for name, scores in control.items()}
    init_default_scope('mmseg')
    cfg = Config.fromfile(work_dir / 'configs' / 'stage1.py')
    checkpoint = (work_dir / 'stage1' / 'last_checkpoint').read_text().strip()
    rows['no text: centre'] = {s: centre_guess(data_set_of(cfg, s)) for s in SPLITS}
    rows['no text: empty sentence'] = {
        s: empty_sentence_guess(data_set_of(cfg, s), cfg, checkpoint) for s in SPLITS
    }
    return rows


def main() -> None:
    """Make the data, train, and compare if asked to."""
    args = parse_args()
    start, runs = time.time(), []
    sizes = ['--train', args.train_images, '--testA', 1]
    for split in SPLITS:
        sizes += [f'--{split}', args.test_images]
    try:
        make = 'dataset_converters/make_refshapes.py'
        run_tool(make, args.data, '--variants', VARIANT, *sizes)
        for seed in args.seeds:
            name = args.work_dir if len(args.seeds) == 1 else f'{args.work_dir}_seed{seed}'
            runs.append(train(args, seed, Path(name)))
            print(f'demo: {(time.time() - start) / 60:.1f} minutes', flush=True)
            if args.compare:
                runs[-1] |= compare(args, seed, Path(name))
                write_text(Path(name) / 'compare.json', json.dumps(runs[-1], indent=1))
                print_scores(runs[-1])
        if len(runs) > 1:
            print_scores(*runs)
    except subprocess.CalledProcessError as error:
        sys.exit(f'demo: {Path(error.cmd[3]).name} failed with exit status {error.returncode}')


if __name__ == '__main__':
    main()
