"""The checkpoints that a config asks for are checked before the run, which reads them unchecked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from nemo_mmseg.compat import mmengine_globals

from .checkpoint import check_optimizer, download, read_checkpoint

REMOTE = ('http://', 'https://')


def check_run_checkpoints(cfg: Config) -> None:
    """Read what a run will load: ``load_from``, or the file to resume, and ``init_cfg`` anywhere.

    Args:
        cfg: Changed in place: what it names by an http(s) address is downloaded once, and then
            named by its local file. ``resume=True`` without ``load_from`` names the newest
            checkpoint of the work dir from now on. Names of other kinds (``torchvision://...``)
            are left to MMEngine.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be downloaded.
        ValueError: It is damaged, or not finite.
    """
    if cfg.get('resume') and not cfg.get('load_from'):
        cfg.load_from = find_latest_checkpoint(cfg.work_dir)
        cfg.resume = cfg.load_from is not None
    if cfg.get('load_from'):
        cfg.load_from = _checked(cfg.load_from, bool(cfg.get('resume')))
    for init in _initial(cfg.get('model')):
        init['checkpoint'] = _checked(init['checkpoint'], resumed=False)


def _checked(name: str, resumed: bool) -> str:
    """Check a checkpoint that MMEngine would read from a file; return how it finds that."""
    if not name.startswith(REMOTE) and '://' in name:
        return name
    path = os.path.expanduser(name)
    content = read_checkpoint(path, allow=mmengine_globals(), mmap=True)
    if resumed:
        check_optimizer(path, content)
    return str(download(name)) if name.startswith(REMOTE) else path


def _initial(config: Any) -> Iterator[dict]:
    """Yield each ``init_cfg`` in a model's config that has a checkpoint."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key == 'init_cfg':
                for init in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(init, dict) and isinstance(init.get('checkpoint'), str):
                        yield init
            else:
                yield from _initial(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _initial(value)
