"""What the command lines in `tools/` share: common arguments and the loading of a config."""

import argparse
import os

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device

from nemo_mmseg.apis.find_config import find_config


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `config` and `--cfg-options`, which every tool that reads a config has.

    Args:
        parser: The tool's parser; changed in place.
    """
    parser.add_argument('config', help="config file, or the name of one of the package's")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_cfg.max_epochs=3 or key="[a,b]"',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--work-dir`, `--launcher` and the local rank, for tools that start a runner.

    Args:
        parser: The tool's parser; changed in place.
    """
    parser.add_argument(
        '--work-dir',
        help="folder of logs and checkpoints (default: the config's, else work_dirs/<its name>)",
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run are started',
    )
    # `torch.distributed.launch` passes the first spelling from PyTorch 2.0 on, the second before.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config that the arguments name and apply what they override.

    Args:
        args: Parsed arguments with `config` and `cfg_options`; `work_dir`, `launcher` and
            `local_rank` are used where the tool has them.

    Returns:
        The config. `work_dir` is set: from the command line, else from the config, else
        `work_dirs/<name of the config file>`.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    path = find_config(args.config)
    cfg = Config.fromfile(path)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)

    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(key)
        if loader and loader.get('num_workers') == 0:
            loader.persistent_workers = False  # PyTorch refuses them where there are none

    if getattr(args, 'work_dir', None) is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = os.path.splitext(os.path.basename(path))[0]
        cfg.work_dir = os.path.join('work_dirs', name)
    if hasattr(args, 'launcher'):
        cfg.launcher = args.launcher
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
        if args.launcher == 'pytorch' and get_device() == 'cpu':
            _join_on_cpu(cfg)
    return cfg


def _join_on_cpu(cfg: Config) -> None:
    """Join the processes of `torchrun` on a machine without accelerator.

    MMEngine asks for a CUDA device when it starts a distributed run and again when it wraps the
    network; both are left out when the process group exists and the wrapper is configured.
    """
    torch.distributed.init_process_group('gloo')
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def leave_process_group() -> None:
    """Leave the process group of a distributed run, if there is one; a tool's last act.

    Gloo's threads outlive a group that is merely forgotten, and one of them that asks for the
    interpreter while it shuts down aborts the process: a finished run would end as a failed one.
    Not for runs that failed: there other ranks may still wait for this one, and its end tells them.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
