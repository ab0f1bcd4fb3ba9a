"""Choose tau by looking: ``python tools/analysis_tools/inspect_bank.py CONFIG --out DIR``.

For each bank of the config's training data (mined before), it prints how many images each setting
of the band leaves, and writes a page with the same numbers, a plot, and for some expressions the
images at the edges of the band: ``DIR/bank.html`` (``bank_1.html``, ... where there are several).
The config's own settings come first, then its tau with the given sizes and image-to-image
thresholds, then all combinations of the given ones.
"""

import argparse
from pathlib import Path

from bank_page import HEAD, NOTES, rules_to_show, summarize_rules, write_bank_page
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.datasets.requirements import BankRequirement
from nemo_mmseg.mining import check_bank
from nemo_mmseg.mining.requirements import requirements_of
from nemo_mmseg.negatives.band import TAU_MODES
from nemo_mmseg.utils.atomic_write import check_folder_path
from nemo_mmseg.utils.config import add_config_arguments, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Show what settings of the band leave of a bank')
    add_config_arguments(parser)
    parser.add_argument('--out', required=True, help='folder for the pages')
    for mode in TAU_MODES:
        number = int if mode == 'rank' else float
        parser.add_argument(
            f'--{mode}', type=number, nargs='+', help=f'values of tau in tau_mode={mode!r}'
        )
    parser.add_argument('--top-k', type=int, nargs='+', default=[], help="default: the config's")
    parser.add_argument(
        '--i2i', type=float, nargs='+', default=[], help='image-to-image thresholds, beside none'
    )
    parser.add_argument('--expressions', type=int, default=4, help='shown on the page, default: 4')
    return parser.parse_args()


def main() -> None:
    """Print and write, bank after bank."""
    args = parse_args()
    check_folder_path(args.out)
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    found = requirements_of(DATASETS.build(cfg.train_dataloader.dataset))
    banks = [one for one in found if isinstance(one, BankRequirement)]
    requirements = [one for one in banks if one.spec.kind == 'images']
    if not requirements:
        raise ValueError(f'{args.config} has no NeMoMosaic that reads a bank')
    taus = {mode: getattr(args, mode) for mode in TAU_MODES if getattr(args, mode)}
    for number, requirement in enumerate(requirements):
        bank = check_bank(requirement.dataset, requirement.spec)
        rules = rules_to_show(requirement.bands, bank, taus, args.top_k, args.i2i)
        summaries = summarize_rules(requirement, bank, rules)
        table = PrettyTable(HEAD)
        table.add_rows([summary.cells() for summary in summaries])
        table.align['setting'] = 'l'
        notes = NOTES.format(needed=requirement.num_negatives, stored=bank.stored)
        print(f'{bank.path}\n{table}\n{notes}')
        page = Path(args.out) / (f'bank_{number}.html' if number else 'bank.html')
        write_bank_page(page, requirement, bank, summaries, args.expressions)
        print(f'page: {page}')


if __name__ == '__main__':
    main()
