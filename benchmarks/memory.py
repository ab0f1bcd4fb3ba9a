"""Memory that a part of a program takes while it runs: for the benchmarks and tests of mining."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path


class Peak:
    """``with Peak() as peak: ...`` measures how far the process grew, at most, in between.

    ``ru_maxrss`` cannot say it: it is the largest size ever, of what was freed long ago too, and a
    child of a large process starts with its parent's. Linux can forget its record of it.

    Attributes:
        mb: MB (2^20 bytes) over what the process held at the start; set at the end.

    Raises:
        OSError: Where there is no ``/proc/self/clear_refs``, that is: not on Linux.
    """

    mb = float('nan')

    def __enter__(self) -> Peak:
        gc.collect()
        # What was freed goes back to the system, or its use would not be seen (glibc only).
        trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
        if trim is not None:
            trim(0)
        try:
            Path('/proc/self/clear_refs').write_text('5')
        except OSError as error:
            raise OSError(
                f'peaks of memory are measured on Linux alone, by /proc/self/clear_refs: {error}'
            ) from None
        self._before = _status('VmRSS')
        return self

    def __exit__(self, *error: object) -> None:
        self.mb = (_status('VmHWM') - self._before) / 1024


def _status(key: str) -> int:
    """Read an entry of this process's status, in KiB."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f'{key}:'))
