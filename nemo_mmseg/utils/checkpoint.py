"""One place where files of weights are read, without running what they hold."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier as wait_for_all
from mmengine.dist import get_local_rank, get_rank

from nemo_mmseg.compat import only_globals

# The end of a published file's name that is the beginning of its SHA-256; a date is none.
NAMED_HASH = re.compile(r'-(?=\d*[a-f])([0-9a-f]{8,64})\.pth$')
DAMAGED = 'it is damaged or cut short'
REFUSED = re.compile(r'[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) (\w[\w.]*)')


def read_checkpoint(path: str | os.PathLike, allow: Iterable = (), mmap: bool = False) -> Any:
    """Read a file that ``torch.save`` wrote, onto the CPU.

    Only tensors and plain containers are unpickled, and what is allowed here.

    Args:
        path: Local file, or http(s) address; what is downloaded stays in PyTorch's hub folder,
            unless it is damaged.
        allow: Further classes and functions that the file may hold, as
            ``torch.serialization.add_safe_globals`` takes them. What the process allows elsewhere
            does not count.
        mmap: Leave the tensors in the file until they are looked at, where its format (PyTorch's
            since 1.6) can do so.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be downloaded or opened.
        ValueError: The file is damaged or holds other things.
    """
    remote = urlparse(str(path)).scheme in ('http', 'https')
    file = download(str(path)) if remote else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}')
    try:
        with only_globals(allow):
            lazily = mmap and zipfile.is_zipfile(file)
            return torch.load(file, map_location='cpu', weights_only=True, mmap=lazily)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes PyTorch's readers raise whatever they meet,
        # also the system's error of a place that is not in the file
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = _reason(error)
        if remote and reason.startswith(DAMAGED):
            file.unlink(missing_ok=True)
        raise ValueError(f'{path} cannot be read as a checkpoint: {reason}') from error


def _reason(error: Exception) -> str:
    """Say what was wrong, in one line, without PyTorch's advice to read the file unsafely."""
    # PyTorch wraps the advice around what its reader raised
    inner = error.__context__
    text = str(inner if isinstance(inner, pickle.UnpicklingError) else error)
    refused = REFUSED.search(text)
    if not refused:
        lines = text.strip().splitlines()
        return f'{DAMAGED} ({lines[0] if lines else type(error).__name__})'
    return f'it holds {refused[1]}, which is no tensor or plain container'


def download(url: str) -> Path:
    """Fetch a file once per machine into PyTorch's hub folder; other processes wait.

    A name that ends in ``-<beginning of the SHA-256>.pth`` is kept and the file is checked against
    it; others are told apart by their whole address, unless a file of the plain name lies there
    already.

    Args:
        url: http(s) address.

    Returns:
        Where the file lies. It is never there half-written.

    Raises:
        OSError: It cannot be fetched or does not have the hash in its name.
    """
    name = Path(urlparse(url).path).name
    named = NAMED_HASH.search(name)
    if not named:
        stem, suffix = os.path.splitext(name)
        name = f'{stem}_{hashlib.sha256(url.encode()).hexdigest()[:12]}{suffix}'
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    target, prepared = folder / name, folder / Path(urlparse(url).path).name
    if not target.exists() and prepared.is_file():
        # laid there by somebody for machines without a network, or by PyTorch's own loader
        return prepared
    if get_local_rank() == 0 and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                url, str(target), named and named[1], progress=get_rank() == 0
            )
        except (OSError, RuntimeError, HTTPException) as error:
            raise OSError(f'{url} cannot be downloaded: {error}') from error
    wait_for_all()
    return target
