"""Run a program of ``tools/`` in a process of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def find_tool(name: str | os.PathLike) -> Path:
    """Find a program of this package.

    Args:
        name: Its path inside ``tools/``, or any absolute path.

    Returns:
        The file; that of an installed package comes before that of a checkout.

    Raises:
        FileNotFoundError: There is none.
    """
    found = [root / 'tools' / name for root in (PACKAGE / '.mim', PACKAGE.parent)]
    for path in found:
        if path.is_file():
            return path
    raise FileNotFoundError(f'there is no program {found[-1]}')


def run_tool(name: str | os.PathLike, *arguments: object) -> None:
    """Run a program; its output is that of this process. A checkout need not be installed.

    On Linux the program ends with this process, however that ends: a second one, which the next run
    would start, would write to the same files.

    Args:
        name: See :func:`find_tool`.
        arguments: Its command line.

    Raises:
        FileNotFoundError: There is no such program.
        subprocess.CalledProcessError: It failed.
    """
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get('PYTHONPATH')]))
    command = [sys.executable, '-W', 'ignore', find_tool(name), *arguments]
    subprocess.run(
        [*map(str, command)],
        env={**os.environ, 'PYTHONPATH': path},
        check=True,
        preexec_fn=_end_with_parent,
    )


def _end_with_parent() -> None:
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
