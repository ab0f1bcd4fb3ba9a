"""Make the tile stores of a config: ``python tools/misc/make_tile_store.py CONFIG``.

A store holds every image of a pool, resized once to a cell of the mosaic (``tiles=dict(path=...)``
of ``NeMoMosaic``). ``tools/mine_negatives.py`` and ``NegativeMiningHook`` make missing ones as
well. A run that was killed is continued by the same command.
"""

import argparse

from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.datasets.requirements import TileRequirement
from nemo_mmseg.mining import make, requirements_of
from nemo_mmseg.utils.config import add_config_arguments, load_config


def main() -> None:
    """Build the training data set of the config and make its stores."""
    parser = argparse.ArgumentParser(description='Make the tile stores of a config')
    add_config_arguments(parser)
    parser.add_argument('--workers', type=int, default=2, help='processes that decode images')
    args = parser.parse_args()
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    requirements = requirements_of(DATASETS.build(cfg.train_dataloader.dataset))
    stores = [needed for needed in requirements if isinstance(needed, TileRequirement)]
    if not stores:
        parser.error(
            f'{args.config} has no NeMoMosaic with tiles=dict(path=...) in its training pipeline'
        )
    for requirement in stores:
        store, spec = make(requirement, num_workers=args.workers), requirement.spec
        print(f'{spec.path}: {len(store)} tiles of {spec.height}x{spec.width}, {spec.encoding}')


if __name__ == '__main__':
    main()
