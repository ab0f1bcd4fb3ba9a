"""Is a negative true after all? ``python projects/experiments/false_negatives.py CONFIG``.

For RefShapes, whose scene graphs know what every image shows. CONFIG's training pipeline has a
``NeMoMosaic`` (negative images) or a ``ReplaceByNegativeExpression`` (negative expressions), whose
bank was mined before. Of each it counts random and mined negatives, in two readings: *generous*
(somebody might call the expression true of the image) and *strict* (everybody would).
"""

import argparse
import sys
from pathlib import Path

from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests'))
from refshapes_truth.negative_truth import share_of_expressions, share_of_images  # noqa: E402

import nemo_mmseg  # noqa: F401, E402  (registers our classes)
from nemo_mmseg.datasets.base import BaseReferringDataset  # noqa: E402
from nemo_mmseg.datasets.transforms import NeMoMosaic, ReplaceByNegativeExpression  # noqa: E402
from nemo_mmseg.datasets.wrappers import transforms_in  # noqa: E402
from nemo_mmseg.negatives import BandRule  # noqa: E402
from nemo_mmseg.utils.config import add_config_arguments, load_config  # noqa: E402


def count(dataset: BaseReferringDataset, rules: list[BandRule], num: int) -> PrettyTable:
    """Count the negatives of a data set's transforms.

    Args:
        dataset: RefShapes.
        rules: Further bands of negative expressions.
        num: Number of samples for each row.
    """
    table = PrettyTable(['negatives', 'kind', 'number', 'generous', 'strict'])
    table.align = 'l'
    table.float_format = '.4'
    for transform in transforms_in(dataset.pipeline):
        if isinstance(transform, NeMoMosaic):
            for kind in ('random', 'mined'):
                name = kind if kind == 'random' else f'{kind}, {transform.band.at(0)}'
                table.add_row(['images', name, *share_of_images(dataset, transform, kind, num)])
        elif isinstance(transform, ReplaceByNegativeExpression):
            share = share_of_expressions(dataset, transform, 'random', num)
            table.add_row(['expressions', 'random', *share])
            for rule in [transform.band, *rules] if transform.bank else ():
                transform.band = rule
                share = share_of_expressions(dataset, transform, 'mined', num)
                table.add_row(['expressions', f'mined, {rule}', *share])
    return table


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description='Count negatives that are true after all')
    add_config_arguments(parser)
    parser.add_argument('--num', type=int, default=2000, help='samples for each row')
    parser.add_argument(
        '--tau', type=float, nargs='+', default=[], help='of further bands of expressions'
    )
    parser.add_argument(
        '--top-k', type=int, nargs='+', default=[100], help='of these, each with each tau'
    )
    args = parser.parse_args()
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    rules = [BandRule(tau=tau, top_k=k) for tau in args.tau for k in args.top_k]
    print(count(dataset, rules, args.num))


if __name__ == '__main__':
    main()
