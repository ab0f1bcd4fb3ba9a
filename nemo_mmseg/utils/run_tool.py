"""Run a program of ``tools/`` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


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

    Args:
        name: See :func:`find_tool`.
        arguments: Its command line.

    Raises:
        FileNotFoundError: There is no such program.
        subprocess.CalledProcessError: It failed.
    """
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get('PYTHONPATH')]))
    command = [sys.executable, '-W', 'ignore', find_tool(name), *arguments]
    subprocess.run([*map(str, command)], env={**os.environ, 'PYTHONPATH': path}, check=True)
