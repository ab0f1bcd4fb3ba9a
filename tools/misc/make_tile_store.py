"""Make the tile stores of a config: `python tools/misc/make_tile_store.py CONFIG`.

A store holds every image of a pool, resized once to a cell of the mosaic (`store=dict(path=...)` of
`NeMoMosaic`). `tools/mine_negatives.py` and `NegativeMiningHook` make missing ones as well. A run
that was killed is continued by the same command.
"""

import argparse

from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.mining import requirements as wanted_stores
from nemo_mmseg.utils.config import add_config_arguments, load_config


def main() -> None:
    """Build the training data set of the config and make its stores."""
    parser = argparse.ArgumentParser(description='Make the tile stores of a config')
    add_config_arguments(parser)
    parser.add_argument('--workers', type=int, default=2, help='processes that decode images')
    args = parser.parse_args()
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    stores = wanted_stores(DATASETS.build(cfg.train_dataloader.dataset))
    if not stores:
        parser.error(
            f'{args.config} has no NeMoMosaic with store=dict(path=...) in its training pipeline'
        )
    for store in stores:
        made = store.make(num_workers=args.workers)
        height, width = store.settings.height, store.settings.width
        print(f'{store.path}: {len(made)} tiles of {height}x{width}, {store.settings.encoding}')


if __name__ == '__main__':
    main()
