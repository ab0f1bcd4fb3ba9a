"""Train a referring segmentation network: ``python tools/train.py CONFIG``.

On several GPUs: ``torchrun --nproc_per_node N tools/train.py CONFIG --launcher pytorch``.
"""

import argparse
import os

from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.compat import mmengine_globals
from nemo_mmseg.utils.checkpoint import read_checkpoint
from nemo_mmseg.utils.config import add_config_arguments, add_run_arguments, load_config
from nemo_mmseg.utils.dist import leave_process_group
from nemo_mmseg.utils.run_checkpoints import check_run_checkpoints


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a referring segmentation network')
    add_config_arguments(parser)
    add_run_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from a checkpoint; without a name from the newest one in the work dir, '
        'or from the start if there is none yet',
    )
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    return parser.parse_args()


def set_resume(cfg: Config, resume: str) -> None:
    """Make the config continue from a checkpoint.

    Args:
        cfg: Config with its ``work_dir``; changed in place.
        resume: Checkpoint file, or ``'auto'`` for the newest one in the work dir. If there is none,
            the run starts from the beginning, with the initial weights of the config.

    Raises:
        FileNotFoundError: A named checkpoint does not exist.
        ValueError: A named one is damaged or not finite, or holds weights alone, as a converted one
            does. The newest one is looked at by :func:`check_run_checkpoints`.
    """
    # Not MMEngine's own search: it forgets the config's `load_from` when it finds nothing.
    checkpoint = find_latest_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    if checkpoint is None:
        return
    if not os.path.isfile(checkpoint):
        raise FileNotFoundError(f'there is no checkpoint {checkpoint} to resume from')
    if resume != 'auto':
        content = read_checkpoint(checkpoint, allow=mmengine_globals(), mmap=True)
        meta = content.get('meta') if isinstance(content, dict) else None
        if not isinstance(meta, dict) or 'epoch' not in meta:
            raise ValueError(
                f'{checkpoint} holds no state of a training to resume, but weights. To start from '
                f'them, use --cfg-options load_from={checkpoint}'
            )
    cfg.resume = True
    cfg.load_from = checkpoint


def write_whole_checkpoints(cfg: Config) -> None:
    """Let the checkpoints of a run appear when they are whole, whatever config it comes from.

    Args:
        cfg: Changed in place, unless it says how its checkpoints are written.
    """
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    if 'checkpoint' not in cfg.default_hooks:
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)  # MMEngine's own
    hook = cfg.default_hooks.checkpoint
    if hook and '://' not in (hook.get('out_dir') or '') and not hook.get('file_client_args'):
        hook.setdefault('backend_args', dict(backend='whole_file'))


def main() -> None:
    """Build the runner from the config and train."""
    args = parse_args()
    cfg = load_config(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        set_resume(cfg, args.resume)
    check_run_checkpoints(cfg)
    write_whole_checkpoints(cfg)
    Runner.from_cfg(cfg).train()
    leave_process_group()


if __name__ == '__main__':
    main()
