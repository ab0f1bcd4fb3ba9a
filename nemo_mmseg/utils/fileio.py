"""Read annotation files: JSON, and pickles that hold plain data only."""

from __future__ import annotations

import gc
import io
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mmengine.fileio import get

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


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler that knows no class or function but the set types."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ('builtins', '__builtin__') and name in ('set', 'frozenset'):
            return {'set': set, 'frozenset': frozenset}[name]
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError('it asks for an object kept elsewhere')


@collector_paused()
def load_plain_pickle(path: str) -> Any:
    """Read a pickle that holds nothing but containers, strings, numbers, booleans and None.

    Args:
        path: The file, local or of any MMEngine file backend.

    Returns:
        What was pickled.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The pickle is damaged, cut short, or refers to any class or function.
    """
    content = get(path)
    problem: Exception | None = None
    # Files written by Python 2 hold byte strings: UTF-8 where that reads, else Latin-1.
    for encoding in ('utf-8', 'latin-1'):
        try:
            return _PlainUnpickler(io.BytesIO(content), encoding=encoding).load()
        except UnicodeDecodeError as error:
            problem = error
        except Exception as error:  # a damaged pickle fails in any opcode with any exception
            problem = error
            break
    raise ValueError(f'{path} is not a plain pickle of references: {problem}') from problem


@collector_paused()
def load_json(path: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file, local or of any MMEngine file backend.

    Returns:
        The parsed content.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no JSON, or cut short.
    """
    content = get(path)
    with suppress(ValueError):  # Python also writes NaN, which orjson refuses
        return fast_loads(content)
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f'{path} is not valid JSON (cut short?): {error}') from error
