"""Read annotation files: JSON, and pickles that hold plain data only."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mmengine.fileio import get

from .plain_pickle import loads_plain

try:
    from orjson import loads as fast_loads
except ImportError:  # a platform without wheels
    fast_loads = json.loads


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector, which takes half the time of reading a large file.

    It would walk again and again over millions of objects that are all in use. What is there at the
    beginning is frozen, so that MMEngine's ``gc.collect()`` has nothing to walk over either.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


@collector_paused()
def load_plain_pickle(path: str) -> Any:
    """Read a pickle that holds nothing but lists, dicts, tuples, texts, numbers and None.

    Args:
        path: The file, local or of any MMEngine file backend.

    Returns:
        What was pickled, with lists in the place of tuples.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The pickle is damaged, cut short, or refers to any class or function.
    """
    try:
        return loads_plain(get(path))
    except ValueError as error:
        raise ValueError(f'{path} is not a plain pickle of references: {error}') from error


@collector_paused()
def load_json(path: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file, local or of any MMEngine file backend.

    Returns:
        The parsed content.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no JSON, cut short, or nested too deeply.
    """
    content = get(path)
    with suppress(ValueError, RecursionError):  # Python also writes NaN, which orjson refuses
        return fast_loads(content)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:200]
        raise ValueError(f'{path} is not valid JSON (cut short?): {reason}') from error
