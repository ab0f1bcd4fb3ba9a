"""Turn response maps into an annotation file: ``make_masks.py CONFIG MAPS OUT``.

MAPS was made by ``make_response_maps.py CONFIG ...``. ``--affinity CONFIG CHECKPOINT`` refines the
maps with an affinity network, ``--proposals FILE`` chooses masks of any segmenter; both: masks that
fit the refined ones. OUT is an ``instances.json`` that any network trains on:
``RefCOCODataset(ann_file=OUT, ...)``.
"""

import argparse
import sys
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

import nemo_mmseg  # noqa: F401  (registers our classes)
from nemo_mmseg.apis.inference import fill_model
from nemo_mmseg.pseudo_labels.make import data_set_of, make_masks
from nemo_mmseg.pseudo_labels.proposals import ProposalFile
from nemo_mmseg.pseudo_labels.refine import PUBLISHED, RefineSettings
from nemo_mmseg.pseudo_labels.response_maps import ResponseMaps, name_and_digest
from nemo_mmseg.utils.config import add_config_arguments, find_config, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Turn response maps into pseudo masks')
    add_config_arguments(parser)
    parser.add_argument('maps', help='response maps of its data set')
    parser.add_argument('out', help='instances.json to write')
    parser.add_argument(
        '--affinity',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='affinity network that refines the maps (configs/tris/tris-irn_*)',
    )
    parser.add_argument('--proposals', metavar='FILE', help='JSON file of masks to choose from')
    parser.add_argument(
        '--published',
        action='store_true',
        help="TRIS's faults, too: fragments stay, a map without response gives the whole image",
    )
    parser.add_argument(
        '--min-fragment',
        type=float,
        default=RefineSettings().min_fragment,
        help='smaller connected parts are left out; share of the image (default: %(default)s)',
    )
    parser.add_argument(
        '--device', default=get_device(), help='of the network (default: a GPU if there is one)'
    )
    parser.add_argument('--workers', type=int, default=0, help='processes (default: this one)')
    return parser.parse_args()


def load_network(config: str, checkpoint: str, device: str) -> nn.Module:
    """Build an affinity network with the weights of a checkpoint, ours or a converted one."""
    cfg = Config.fromfile(find_config(config)).get('model', {})
    if cfg.get('type') != 'EdgeDisplacementNet':
        raise ValueError(
            f'{config} is no config of an affinity network, an EdgeDisplacementNet: its model is '
            f'{cfg.get("type")}'
        )
    cfg.backbone.init_cfg = None
    network = MODELS.build(cfg)
    fill_model(network, checkpoint)
    return network.to(device).eval()


def settings_of(args: argparse.Namespace) -> RefineSettings:
    """Return the settings of the refinement."""
    base = PUBLISHED if args.published else RefineSettings()
    return RefineSettings(
        min_fragment=args.min_fragment,
        keep_fragments=base.keep_fragments,
        fill_empty=base.fill_empty,
    )


def main() -> int:
    """Make the masks; an error is one line and exit code 1."""
    args = parse_args()
    init_default_scope('mmseg')
    sources: dict[str, Any] = {}
    network = proposals = None
    try:
        maps = ResponseMaps(args.maps)
        dataset = data_set_of(load_config(args), maps.metadata['split'])
        maps.check(dataset)
        if args.affinity:
            network = load_network(*args.affinity, args.device)
            sources['affinity'] = name_and_digest(args.affinity[1])
        if args.proposals:
            proposals = ProposalFile(args.proposals)
        made = make_masks(
            dataset, maps, args.out, network, proposals, settings_of(args), sources, args.workers
        )
    except (ImportError, OSError, ValueError) as error:
        print(f'make_masks: {error}', file=sys.stderr)
        return 1
    print(made)
    return 0


if __name__ == '__main__':
    sys.exit(main())
