"""One process at a time: a lock that ends with the process that holds it, and says which that is.

It is a POSIX record lock. The kernel frees it when the process ends, however it ends, and forked
workers do not inherit it. On a network file system it holds between hosts where the server keeps
locks (NFS does); one without locks is an error. Rights apart, the lock file may be deleted at any
time when nobody holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mmengine.logging import print_log

from .dist import wait_for

# A process can take a record lock twice, and loses it when it closes any handle of the file. So
# what this process holds is known here: the holder by its process, for a forked one holds nothing,
# and its real path. Such a file is not opened again.
_held: dict[tuple[int, str], str] = {}
_taking = threading.Lock()
# How often a file is opened anew that is gone when it is locked, and seconds in between.
TRIES, PAUSE = 50, 0.02


@contextmanager
def only_one(
    path: str | os.PathLike,
    timeout: float,
    what: str,
    signs: Callable[[], Iterable[Path]] = lambda: (),
) -> Iterator[None]:
    """Run the block while no other process, and no other thread, runs one of the same lock file.

    Args:
        path: The lock file, which nothing else uses. Its folder is made. It holds the process and
            the host of its holder, and goes with the block.
        timeout: Seconds to wait while nothing gets on.
        what: What the block does, for messages, e.g. ``'make tiles.safetensors'``.
        signs: Files that the holder writes, or touches, while it gets on; see :func:`wait_for`.
            Defaults to none: the lock file alone, which changes with its holder.

    Raises:
        TimeoutError: Nothing gets on; the message names the holder.
        OSError: The file cannot be written or is no regular one, or its file system has no locks.
    """
    path = Path(os.path.realpath(path))
    file = _take(path)
    if file is None:
        print_log(f'waiting to {what}: {holder_of(path)} is at it', 'current')
        try:
            file = wait_for(lambda: _take(path), lambda: [path, *signs()], timeout, what)
        except TimeoutError:
            raise TimeoutError(
                f'waited to {what}: {holder_of(path)} holds {path}, but nothing got on for '
                f'{timeout:g} s. End that process, then start this run again: it continues'
            ) from None
    try:
        yield
    finally:
        with _taking:
            # Before the lock goes: who opens the file from now on has a new one, and who has opened
            # it sees that it is gone.
            path.unlink(missing_ok=True)
            file.close()
            _held.pop((os.getpid(), str(path)), None)


def holder_of(path: str | os.PathLike) -> str:
    """Say who holds a lock, by what its file says, e.g. ``'process 123 on host'``."""
    path = os.path.realpath(path)
    with _taking:
        known = _held.get((os.getpid(), path))
        if known:
            return f'another thread of {known}'
        try:
            return Path(path).read_text(encoding='utf-8') or 'another process'
        except OSError:  # it has just gone
            return 'another process'


def _take(path: Path) -> TextIO | None:
    """Take the lock of a real path; the open file, or None while another one holds it."""
    key = os.getpid(), str(path)
    with _taking:
        for _ in range(TRIES):
            if key in _held:
                return None
            if _is_special(path):  # to open a FIFO would wait
                raise OSError(errno.EINVAL, 'no lock can be made here: no regular file', str(path))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = open(path, 'a', encoding='utf-8')  # noqa: SIM115 (closed with the lock)
            except FileNotFoundError:  # its folder goes just now, or takes no files
                time.sleep(PAUSE)
                continue
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.close()
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return None
                message = f'{error.strerror}: its file system has no locks, use another one'
                raise OSError(error.errno, message, str(path)) from error
            if _is_at(file, path):
                holder = f'process {os.getpid()} on {socket.gethostname()}'
                file.truncate(0)
                file.write(holder)
                file.flush()
                _held[key] = holder
                return file
            file.close()
    message = 'no lock can be made here: the place takes no files'
    raise FileNotFoundError(errno.ENOENT, message, str(path))


def _is_special(path: Path) -> bool:
    """Whether something that is no regular file is there; one look, as a lock comes and goes."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one of that name: its last holder removes it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
