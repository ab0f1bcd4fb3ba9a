"""Make the response maps of a data set, one for each reference.

``python tools/pseudo_labels/make_response_maps.py CONFIG CHECKPOINT`` runs the network over the
images of the config's test data set, split ``response_maps.split``, and chooses by
``response_maps.selection`` (PRMS). No mask is read. A network that is used as it was published
needs no checkpoint.

On several GPUs: ``torchrun --nproc_per_node N tools/pseudo_labels/make_response_maps.py ...``. A
run that was killed is continued by the same command.
"""

import argparse
import copy
import hashlib
import json
import os
import sys

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.inference import fill_model
from nemo_mmseg.pseudo_labels.make import data_set_of
from nemo_mmseg.pseudo_labels.make_maps import NO_CHECKPOINT, make_response_maps
from nemo_mmseg.pseudo_labels.response_maps import ResponseMaps, name_and_digest
from nemo_mmseg.utils.config import add_config_arguments, load_config

# Transforms that read what a network without masks must not see.
GROUND_TRUTH = ('LoadReferentMask', 'LoadReferentBoxes')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Make the response maps of a data set')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file of the network')
    parser.add_argument(
        '--out',
        help="file to write; default: the config's response_maps.path, else in its work_dir",
    )
    parser.add_argument('--split', help="split of the data set; default: the config's, else train")
    parser.add_argument(
        '--selection',
        choices=['prms', 'mean'],
        default='prms',
        help="prms: as the config's response_maps.selection says; mean: of the expressions' maps",
    )
    parser.add_argument('--batch-size', type=int, default=16, help='images at once')
    parser.add_argument('--workers', type=int, default=2, help='processes that decode images')
    parser.add_argument('--device', help='e.g. cpu or cuda:0; default: a GPU if there is one')
    # `torch.distributed.launch` passes the first spelling from PyTorch 2.0 on, the second before.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def pipeline_of(cfg: Config) -> list[dict]:
    """Return the config's test pipeline without ground truth."""
    pipeline = cfg.test_dataloader.dataset.to_dict()['pipeline']
    return [step for step in pipeline if step['type'] not in GROUND_TRUTH]


def make(args: argparse.Namespace) -> ResponseMaps:
    """Build network and data set, and make the file."""
    cfg = load_config(args)
    settings = cfg.get('response_maps', {})
    selection = dict(type='MeanOfMaps')
    if args.selection == 'prms':
        if 'selection' not in settings:
            raise ValueError(f'{args.config} has no response_maps.selection: use --selection mean')
        selection = settings.selection.to_dict()
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = data_set_of(cfg, args.split or settings.get('split', 'train'), pipeline_of(cfg))
    model = MODELS.build(copy.deepcopy(cfg.model))
    fill_model(model, args.checkpoint)
    # The test config is no part of the network.
    depends_on = json.dumps([dict(cfg.model.to_dict(), test_cfg=None), pipeline_of(cfg)])
    return make_response_maps(
        model,
        dataset,
        args.out or settings.get('path') or os.path.join(cfg.work_dir, 'response_maps.safetensors'),
        selection,
        checkpoint=name_and_digest(args.checkpoint) if args.checkpoint else NO_CHECKPOINT,
        config=hashlib.sha256(depends_on.encode()).hexdigest(),
        batch_size=args.batch_size,
        num_workers=args.workers,
        device=args.device,
    )


def main() -> int:
    """Make the file; an error is one line and exit code 1."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        maps = make(args)
    except (ImportError, OSError, ValueError) as error:
        print(f'make_response_maps: {error}', file=sys.stderr)
        return 1
    size = maps.path.stat().st_size
    print(f'{maps.path}: {len(maps)} response maps, {size / 2**10:.0f} KiB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
