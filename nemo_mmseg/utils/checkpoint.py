"""One place where files of weights are read, without running what they hold."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier as wait_for_all
from mmengine.dist import get_local_rank, get_rank

from nemo_mmseg.compat import allow_checkpoint_globals


def read_checkpoint(path: str | os.PathLike, allow: Sequence[type] = ()) -> Any:
    """Read a file that ``torch.save`` wrote, onto the CPU.

    Only tensors, plain containers and MMEngine's own records are unpickled.

    Args:
        path: Local file, or http(s) address; what is downloaded stays in PyTorch's hub folder.
        allow: Further classes that the file may hold. They are allowed for this one reading.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or holds other things.
    """
    if urlparse(str(path)).scheme in ('http', 'https'):
        path = download(str(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no checkpoint {path}')
    # MMEngine's loader takes the classes it needs off PyTorch's list when it is done.
    allow_checkpoint_globals()
    # PyTorch before 2.5 cannot allow a class for one reading: it refuses the file.
    safe_globals = getattr(torch.serialization, 'safe_globals', None)
    allowing = safe_globals(list(allow)) if allow and safe_globals else contextlib.nullcontext()
    try:
        with allowing:
            return torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f'{path} cannot be read as a checkpoint (cut short, or holds other things than '
            f'tensors): {reason}'
        ) from error


def download(url: str) -> Path:
    """Fetch a file once per machine into PyTorch's hub folder; other processes wait.

    Args:
        url: http(s) address.

    Returns:
        Where the file lies.
    """
    target = Path(torch.hub.get_dir()) / 'checkpoints' / os.path.basename(urlparse(url).path)
    if get_local_rank() == 0 and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), progress=get_rank() == 0)
    wait_for_all()
    return target
