"""Mine the negatives of a config's training data: ``python tools/mine_negatives.py CONFIG``.

It also makes the tile stores of the config, as ``tools/misc/make_tile_store.py`` does.

On several GPUs: ``torchrun --nproc_per_node N tools/mine_negatives.py CONFIG``. A run that was
killed is continued by the same command.
"""

import argparse
import os
from dataclasses import replace

from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.datasets.requirements import BankRequirement
from nemo_mmseg.datasets.wrappers import data_sets_of
from nemo_mmseg.mining import make, requirements_of
from nemo_mmseg.negatives.bank import BankSpec
from nemo_mmseg.utils.config import add_config_arguments, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Mine the negatives of a config's training data")
    add_config_arguments(parser)
    parser.add_argument('--out', help="bank to write; default: bank['path'] of the config's mosaic")
    parser.add_argument('--model', help="open_clip model; default: the config's")
    parser.add_argument('--pretrained', help="its weights, tag or file; default: the config's")
    parser.add_argument(
        '--keep',
        type=int,
        help="images stored per expression, or expressions per image; default: the config's, "
        'else 1000',
    )
    parser.add_argument(
        '--kind',
        choices=['images', 'expressions'],
        help='mine only the banks of this kind: images for each expression (NeMoMosaic) or '
        'expressions for each image (ReplaceByNegativeExpression); default: all of the config',
    )
    parser.add_argument(
        '--images', help="folder whose images become the negatives; default: the config's, if any"
    )
    parser.add_argument(
        '--cache',
        help='folder of the vectors that runs share; default: $NEMO_MMSEG_CACHE or ~/.cache',
    )
    parser.add_argument(
        '--no-cache', dest='cache', action='store_false', help='embed everything, and keep nothing'
    )
    parser.add_argument('--batch-size', type=int, default=64, help='images, or texts, per batch')
    parser.add_argument('--workers', type=int, default=2, help='processes that decode images')
    parser.add_argument('--device', help='e.g. cpu or cuda:0; default: a GPU if there is one')
    # `torch.distributed.launch` passes the first spelling from PyTorch 2.0 on, the second before.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    changes = spec_changes(args)
    if changes and 'path' not in changes:
        parser.error(
            "the bank of the config's path must have the config's settings: with --model, "
            '--pretrained, --keep or --images, name another file by --out'
        )
    return args


def spec_changes(args: argparse.Namespace) -> dict:
    """Return what the command line says of the bank."""
    names = dict(path='out', model='model', pretrained='pretrained', keep='keep', images='images')
    given = {field: getattr(args, name) for field, name in names.items()}
    return {field: value for field, value in given.items() if value is not None}


def mine(dataset: BaseDataset, args: argparse.Namespace) -> None:
    """Mine each bank that the data set needs, or the one of the command line.

    Args:
        dataset: The training data set.
        args: The command line.

    Raises:
        ValueError: The config needs no bank and the command line has no model, or several data sets
            would go into one file.
    """
    changes = spec_changes(args)
    requirements = requirements_of(dataset)
    if args.kind:
        requirements = [one for one in requirements if getattr(one.spec, 'kind', '') == args.kind]
    banks = [needed for needed in requirements if isinstance(needed, BankRequirement)]
    if changes:  # the bank of the command line alone
        if not banks:
            data_sets = [inner for inner, _ in data_sets_of(dataset)]
            spec = BankSpec(args.out, kind=args.kind or 'images')
            banks = [BankRequirement(inner, spec, (), 0) for inner in data_sets]
        if len({needed.spec.kind for needed in banks}) > 1:
            raise ValueError(
                f'banks of images and of expressions cannot share {args.out}: choose one by --kind'
            )
        if len({needed.dataset.fingerprint for needed in banks}) > 1:
            raise ValueError(f'{len(banks)} data sets cannot share one bank, {args.out}')
        requirements = [replace(needed, spec=replace(needed.spec, **changes)) for needed in banks]
    elif not requirements:
        raise ValueError(
            f'{args.config} has nothing in its training pipeline that needs a bank of '
            f'{args.kind or "images or expressions"} (NeMoMosaic with mined negatives, '
            'ReplaceByNegativeExpression with a bank): give --out, --model and --pretrained'
        )
    for requirement in requirements:
        make(
            requirement,
            num_workers=args.workers,
            batch_size=args.batch_size,
            device=args.device,
            cache=True if args.cache is None else args.cache,
        )


def main() -> None:
    """Build the training data set of the config and mine its banks."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    mine(DATASETS.build(cfg.train_dataloader.dataset), args)


if __name__ == '__main__':
    main()
