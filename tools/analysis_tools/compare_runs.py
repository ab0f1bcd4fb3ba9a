"""Compare two evaluated runs: ``tools/analysis_tools/compare_runs.py RUN_A RUN_B --out DIR``.

RUN_A and RUN_B are folders with ``predictions.json`` of ``tools/test.py --out``, on the same split.
Prints oIoU, mIoU and Pr@X of both, the difference B - A with paired bootstrap intervals (resampling
images), and the same by number of distractors, expression length, object area and position words.
With no-target expressions (gRefCOCO) the measures are gIoU, cIoU, N-acc, T-acc and Pr@X. Writes
``DIR/comparison.csv`` and ``DIR/comparison.png``.
"""

import argparse
from pathlib import Path

from nemo_mmseg.evaluation.compare import ANALYSES, compare_runs
from nemo_mmseg.evaluation.scores import ExpressionScores
from nemo_mmseg.utils.atomic_write import check_folder_path
from nemo_mmseg.visualization.plot_comparison import plot_comparison


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Compare two evaluated runs')
    parser.add_argument('run_a', help='results of the run that is subtracted, e.g. without NeMo')
    parser.add_argument('run_b', help='results of the other run, e.g. with NeMo')
    parser.add_argument('--out', required=True, help='folder for comparison.csv and comparison.png')
    parser.add_argument('--names', nargs=2, default=['A', 'B'], help='what to call the two runs')
    parser.add_argument(
        '--by',
        nargs='*',
        default=list(ANALYSES),
        help=f'difficulties; joined by * they are crossed (default: {" ".join(ANALYSES)})',
    )
    parser.add_argument(
        '--measures',
        nargs='+',
        help='measures of the slices that are printed and drawn (default: oIoU mIoU, or cIoU gIoU '
        'for gRefCOCO); the CSV has all of them',
    )
    parser.add_argument('--resamples', type=int, default=10_000, help='default: 10000')
    parser.add_argument('--level', type=float, default=0.95, help='of the intervals, default: 0.95')
    parser.add_argument('--seed', type=int, default=0, help='of the resamples, default: 0')
    return parser.parse_args()


def main() -> None:
    """Compare, print, write."""
    args = parse_args()
    check_folder_path(args.out)
    comparison = compare_runs(
        ExpressionScores.read(args.run_a),
        ExpressionScores.read(args.run_b),
        by=args.by,
        names=args.names,
        resamples=args.resamples,
        level=args.level,
        seed=args.seed,
    )
    print(comparison.table(args.measures))
    out = Path(args.out)
    comparison.write_csv(out / 'comparison.csv')
    plot_comparison(comparison, out / 'comparison.png', args.measures)
    print(f'{out / "comparison.csv"} and {out / "comparison.png"}')


if __name__ == '__main__':
    main()
