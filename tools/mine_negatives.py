"""Mine the negatives of a config's training data: `python tools/mine_negatives.py CONFIG`.

It also makes the tile stores of the config's mosaics, as `tools/misc/make_tile_store.py` does.

On several GPUs: `torchrun --nproc_per_node N tools/mine_negatives.py CONFIG`. A run that was killed
is continued by the same command.
"""

import argparse
import os
from typing import Any

from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.datasets.wrappers import data_sets_of
from nemo_mmseg.mining import requirements as wanted_stores
from nemo_mmseg.mining.mine import mine_bank
from nemo_mmseg.mining.requirements import check_band, wanted_banks
from nemo_mmseg.utils.config import add_config_arguments, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Mine the negatives of a config's training data")
    add_config_arguments(parser)
    parser.add_argument('--out', help="bank to write; default: bank['path'] of the config's mosaic")
    parser.add_argument('--model', help="open_clip model; default: the config's")
    parser.add_argument('--pretrained', help="its weights, tag or file; default: the config's")
    parser.add_argument(
        '--keep', type=int, help="images stored an expression; default: the config's, else 1000"
    )
    parser.add_argument(
        '--images', help="folder whose images become the negatives; default: the config's, if any"
    )
    parser.add_argument(
        '--index', help="faiss index in place of exact search; default: the config's, if any"
    )
    parser.add_argument(
        '--cache',
        help='folder of the vectors that runs share; default: $NEMO_MMSEG_CACHE or ~/.cache',
    )
    parser.add_argument(
        '--no-cache', dest='cache', action='store_false', help='embed everything, and keep nothing'
    )
    parser.add_argument('--batch-size', type=int, default=64, help='images, or texts, a batch')
    parser.add_argument('--workers', type=int, default=2, help='processes that decode images')
    parser.add_argument('--device', help='e.g. cpu or cuda:0; default: a GPU if there is one')
    # `torch.distributed.launch` passes the first spelling from PyTorch 2.0 on, the second before.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    changed = args.model, args.pretrained, args.images, args.keep, args.index
    if args.out is None and any(value is not None for value in changed):
        parser.error(
            "the bank of the config's path must have the config's settings: with --model, "
            '--pretrained, --images, --keep or --index, name another file by --out'
        )
    return args


def mine(dataset: Any, args: argparse.Namespace) -> None:
    """Mine each bank that a data set's mosaics read, or the one of the command line.

    Tile stores are made, too, unless the bank is one of the command line.

    Args:
        dataset: The training data set.
        args: The command line.

    Raises:
        ValueError: The config has no mosaic with a bank and the command line no model, or several
            data sets would go into one file.
    """
    cache = True if args.cache is None else args.cache
    options = dict(
        batch_size=args.batch_size, num_workers=args.workers, device=args.device, cache=cache
    )
    overrides = dict(
        path=args.out,
        model=args.model,
        pretrained=args.pretrained,
        keep=args.keep,
        images=args.images,
        index=args.index,
    )
    overrides = {key: value for key, value in overrides.items() if value is not None}
    wanted = wanted_banks(dataset)
    data_sets = [w.dataset for w in wanted] or [data for data, _ in data_sets_of(dataset)]
    if args.out and len({data.fingerprint for data in data_sets}) > 1:
        raise ValueError(f'{len(data_sets)} data sets cannot share one bank, {args.out}')
    for store in wanted_stores(dataset) if args.out is None else ():
        store.make(num_workers=args.workers)
    for entry in wanted:
        entry.mosaic.bank = {**entry.mosaic.bank, **overrides}
        check_band(entry, entry.mine(**options))
    if not wanted:
        if not (args.model and args.out):
            raise ValueError(
                f'{args.config} has no NeMoMosaic with a bank (and mined_prob > 0) in its training '
                'pipeline: give --out, --model and --pretrained'
            )
        overrides.setdefault('pretrained', None)
        mine_bank(data_sets[0], **overrides, **options)


def main() -> None:
    """Build the training data set of the config and mine its banks."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    mine(DATASETS.build(cfg.train_dataloader.dataset), args)


if __name__ == '__main__':
    main()
