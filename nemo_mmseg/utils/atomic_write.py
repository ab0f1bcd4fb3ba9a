"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Of a temporary file: a digest of the host, and the process that writes it.
_OURS = re.compile(r'\..+\.([0-9a-f]{6})-(\d+)-[0-9a-f]{8}\.tmp')
# When each folder was last looked through for such files of dead processes, and for how long.
_looked: dict[Path, tuple[float, float]] = {}


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Open a temporary file; it gets its name when the block ends, and is removed where it fails.

    It lies in the same folder and ends in ``.tmp``; other processes and threads have others. Its
    rights are those of any new file of the user, whatever library writes it. Its name tells the
    process: those that killed processes of this host left are removed.

    Args:
        path: File to write; its folder is made.

    Yields:
        The temporary file, empty.

    Raises:
        OSError: The path is a folder or a device, or the file cannot be written. The message names
            ``path``.
    """
    path = Path(path)
    check_file_path(path)
    with while_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    part = path.with_name(f'.{path.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp')
    try:
        with while_writing(path, part):
            part.touch()
            rights = part.stat().st_mode
            yield part
            part.chmod(rights)
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def while_writing(
    path: str | os.PathLike, part: str | os.PathLike | None = None, remark: str = ''
) -> Iterator[None]:
    """Let an error of the system, e.g. of a full disk, say which file was being written.

    Args:
        path: The file as the user knows it.
        part: The name under which it is written. Errors that name another file, and those that are
            not the system's, are left as they are.
        remark: What else the message says.

    Raises:
        OSError: What the block raised, of the same class.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError):  # as torch.save hides what the system said
            if not isinstance(error.__context__, OSError):
                raise
            error = error.__context__
        known = error.filename is not None and str(error.filename) not in map(str, (path, part))
        if known or error.errno is None:
            raise
        raise OSError(error.errno, f'{error.strerror}, while writing {path}{remark}') from error


def check_file_path(path: str | os.PathLike) -> None:
    """Refuse a path at which no file can be, before work is done for it.

    Raises:
        IsADirectoryError: It is a folder.
        NotADirectoryError: It lies in a file, or in a link to nothing.
        OSError: It is a device, pipe or socket, which a file would replace.
    """
    mode = _mode_of(path)
    if mode is not None and stat.S_ISDIR(mode):
        message = 'a file is to be written here, but this is a folder'
        raise IsADirectoryError(errno.EISDIR, message, str(path))
    if mode is not None and not stat.S_ISREG(mode):
        message = 'a file is to be written here, but this is a device, a pipe or a socket'
        raise OSError(errno.EEXIST, message, str(path))
    check_folder_path(Path(path).parent)


def check_folder_path(path: str | os.PathLike) -> None:
    """Refuse a path at which no folder can be, before work is done for it.

    Raises:
        NotADirectoryError: It is a file or a link to nothing, or lies in one.
    """
    for folder in (Path(path), *Path(path).parents):
        mode = _mode_of(folder)
        if mode is not None and stat.S_ISDIR(mode):
            return
        if mode is not None or folder.is_symlink():
            found = 'a link to nothing' if mode is None else 'a file'
            message = f'{path} cannot be a folder: this is {found}'
            raise NotADirectoryError(errno.ENOTDIR, message, str(folder))


def _mode_of(path: str | os.PathLike) -> int | None:
    """Return what there is; None if nothing. One look, as other processes make and remove it."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes, on this host, are gone.

    A folder of many files, to which many are written, is not looked through for each of them: it
    takes a hundredth of the time at most.
    """
    started = time.monotonic()
    ended, took = _looked.get(folder, (0.0, 0.0))
    if started - ended < 100 * took:
        return
    with suppress(OSError):  # another user's, or gone
        for entry in os.scandir(folder):
            found = _OURS.fullmatch(entry.name)
            if found and found[1] == _host() and not _lives(int(found[2])):
                os.unlink(entry.path)
    ended = time.monotonic()
    _looked[folder] = ended, ended - started


def _host() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file with :func:`atomic_write`."""
    with atomic_write(path) as part:
        part.write_bytes(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text in UTF-8 with :func:`atomic_write`."""
    write_bytes(path, text.encode())
