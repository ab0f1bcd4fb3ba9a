"""Configs of this package by name, and what tools that read a config have in common."""

import argparse
import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device

PACKAGE = Path(__file__).resolve().parents[1]
LOADERS = ('train', 'val', 'test')


def find_config(name: str) -> str:
    """Find a config of this package by its name.

    MMEngine's own lookup by name (``mmseg::...``) is closed to plugins, hence this one.

    Args:
        name: Path of a config file, or the name of one of this package's configs with or without
            ``.py``, e.g. ``'cris_r50_8xb8-50e_refcoco-416x416'``. The configs of an installed
            package (``nemo_mmseg/.mim/configs``) come before those of a checkout (``configs``).

    Returns:
        Path of an existing file.

    Raises:
        FileNotFoundError: There is none; the message names the nearest ones.
    """
    if Path(name).is_file():
        return str(name)
    stem = Path(name).name.removesuffix('.py')
    known: dict[str, Path] = {}
    for root in (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs'):
        for path in sorted(root.rglob('*.py')):
            if '_base_' not in path.parts:
                known.setdefault(path.stem, path)
    if stem == name.removesuffix('.py') and stem in known:
        return str(known[stem])
    near = difflib.get_close_matches(stem, known, n=3, cutoff=0.4)
    hint = f'near it: {", ".join(near)}' if near else f'there are {len(known)} configs by name'
    raise FileNotFoundError(f'{name} is neither a config file nor a name of a config; {hint}')


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``config`` and ``--cfg-options``, which every tool that reads a config has.

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
    """Add ``--work-dir``, ``--launcher`` and the local rank, for tools that start a runner.

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
        args: Parsed arguments with ``config`` and ``cfg_options``; ``work_dir``, ``launcher`` and
            ``local_rank`` are used where the tool has them.

    Returns:
        The config. Its ``work_dir`` is that of the command line, else the config's, else
        ``work_dirs/<name of the config file>``.

    Raises:
        FileNotFoundError: There is no such config.
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
    """Join the processes of ``torchrun`` on a machine without accelerator.

    MMEngine asks for a CUDA device when it starts a distributed run, and again when it wraps the
    network. It does neither if the process group exists and the wrapper is configured.
    """
    torch.distributed.init_process_group('gloo')
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def leaf_datasets(cfg: dict) -> Iterator[dict]:
    """Yield the data sets inside the wrappers (``ConcatDataset``, ...) of a data set's config."""
    if 'datasets' in cfg:
        for inner in cfg['datasets']:
            yield from leaf_datasets(inner)
    elif isinstance(cfg.get('dataset'), dict):
        yield from leaf_datasets(cfg['dataset'])
    else:
        yield cfg


def loaded_datasets(cfg: Config, loaders: Iterable[str] = LOADERS) -> Iterator[tuple[str, dict]]:
    """Yield what the data loaders of a config read: the loader's name, and a data set's config.

    Args:
        cfg: Config with ``train_dataloader``, ``val_dataloader``, ``test_dataloader``, or some.
        loaders: Which of ``'train'``, ``'val'``, ``'test'``. Defaults to all.
    """
    for loader in loaders:
        if found := cfg.get(f'{loader}_dataloader'):
            for leaf in leaf_datasets(found['dataset']):
                yield loader, leaf
