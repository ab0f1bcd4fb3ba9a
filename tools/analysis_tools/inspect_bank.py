"""Choose tau by looking: `python tools/analysis_tools/inspect_bank.py CONFIG --out DIR`.

For each bank of the config's training data, mined before, prints how many images each setting of
the band leaves, and writes `DIR/bank.html` (`bank_1.html`, ... where there are several) with the
same numbers, a plot, and for some expressions the images at the edges of the band. The config's own
settings come first, then its tau with the given sizes and image-to-image thresholds, then all
combinations of the given ones. The data may be a data set's own images or a folder of negatives.
"""

import argparse
from pathlib import Path

from bank_page import (
    HEAD,
    NOTES,
    default_taus,
    make_rules,
    refine_rules,
    summarize_rules,
    write_bank_page,
)
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.mining.requirements import held_out_images, wanted_banks
from nemo_mmseg.negatives.band import TAU_MODES
from nemo_mmseg.utils.config import add_config_arguments, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Show what settings of the band leave of a bank')
    add_config_arguments(parser)
    parser.add_argument('--out', required=True, help='folder for the pages')
    for mode in TAU_MODES:
        parser.add_argument(
            f'--{mode}', type=float, nargs='+', help=f'values of tau in tau_mode={mode!r}'
        )
    parser.add_argument('--top-k', type=int, nargs='+', help="default: the config's")
    parser.add_argument(
        '--i2i', type=float, nargs='+', default=[], help='image-to-image thresholds, beside none'
    )
    parser.add_argument('--expressions', type=int, default=4, help='shown on the page, default: 4')
    return parser.parse_args()


def main() -> None:
    """Print and write, bank after bank."""
    args = parse_args()
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    banks = wanted_banks(DATASETS.build(cfg.train_dataloader.dataset))
    if not banks:
        raise ValueError(f'{args.config} has no NeMoMosaic that reads a bank')
    for number, wanted in enumerate(banks):
        bank, own = wanted.check(), wanted.mosaic.band_rules()
        given = {mode: getattr(args, mode) for mode in TAU_MODES if getattr(args, mode)}
        refined = refine_rules(own, args.top_k or (), args.i2i)
        top_ks = args.top_k or [own[-1].top_k]
        rules = make_rules(given or default_taus(bank), top_ks, [None, *args.i2i], bank.stored)
        needed = wanted.mosaic.layout.most_cells - 1
        without = held_out_images(wanted, bank)
        summaries = summarize_rules(bank, dict.fromkeys([*refined, *rules]), needed, without)
        table = PrettyTable(HEAD)
        table.add_rows([summary.cells() for summary in summaries])
        table.align['setting'] = 'l'
        print(f'{bank.path}\n{table}\n{NOTES.format(needed=needed, stored=bank.stored)}')
        page = Path(args.out) / (f'bank_{number}.html' if number else 'bank.html')
        write_bank_page(page, wanted, bank, summaries, args.expressions)
        print(f'page: {page}')


if __name__ == '__main__':
    main()
