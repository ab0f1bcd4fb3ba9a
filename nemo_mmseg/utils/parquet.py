"""Read Parquet files as Hugging Face's data sets have them, by pyarrow alone.

pyarrow is an extra of this package, and is imported when a data set needs it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .faults import MISSING, DataError, fault

# `validation-00000-of-00001.parquet`, `validation-00000-of-00001-abc.parquet`, `validation.parquet`
_SHARD = re.compile(r'(?P<split>.+?)(-(?P<row>\d{5})-of-(?P<count>\d{5})(-\w+)?)?\.parquet')
_REPOSITORY = re.compile(r'[\w.-]+/[\w.-]+')
# What the columns that are read may take in memory: RefCOCO's annotations take 0.1 GB, the largest
# row of RefCOCO-M a few MB.
MAX_BYTES = 2**32


def import_pyarrow(what: str) -> ModuleType:
    """Return the module pyarrow with its reader of Parquet, or say how to install it.

    Args:
        what: What needs it, for the message.

    Raises:
        ImportError: It cannot be imported.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f'{what} needs pyarrow ({error}): pip install "nemo-mmsegmentation[parquet]", or '
            'pip install pyarrow'
        ) from error
    return pyarrow


def in_root(data_root: str, source: str) -> str:
    """Join a source of :func:`find_shards` with the root of the data, if it is there."""
    inside = os.path.join(data_root, source)
    return inside if os.path.exists(inside) else source


def shards_by_split(source: str) -> dict[str, list[str]]:
    """Find the Parquet files of a data set, in a folder or in the cache of the Hugging Face hub.

    Nothing is downloaded.

    Args:
        source: A folder, with the files in it or in its folder ``data``; one file; or the name of a
            data set of the hub, e.g. ``'jxu124/refcoco'``, that lies in the cache.

    Returns:
        Sorted paths by the name of the split. One file has the name ``''``.

    Raises:
        FileNotFoundError: There is no such folder or data set; the message says how to get it.
    """
    if os.path.isfile(source):
        return {'': [source]}
    folder = Path(source) if os.path.isdir(source) else _cached(source)
    found: dict[str, list[str]] = {}
    for path in sorted([*folder.glob('*.parquet'), *folder.glob('data/*.parquet')]):
        found.setdefault(_SHARD.fullmatch(path.name)['split'], []).append(str(path))
    return found


def find_shards(source: str, names: Sequence[str]) -> list[str]:
    """Find the Parquet files of a split.

    Args:
        source: See :func:`shards_by_split`.
        names: Names that the split can have, e.g. ``('val', 'validation')``.

    Returns:
        Paths of the files of the first name that has some, sorted.

    Raises:
        FileNotFoundError: There is no such folder, data set or split, or some of its files are
            missing; the message says how to get the data set, or which splits or files there are.
        ValueError: The split is there twice.
    """
    found = shards_by_split(source)
    for name in (*names, ''):
        if name in found:
            if name:
                _check_whole(found[name], name, source)
            return found[name]
    raise FileNotFoundError(
        f'{source} has no Parquet file of the split {" or ".join(map(repr, names))}; it has: '
        f'{", ".join(sorted(found)) or "none of any split"}'
    )


def _check_whole(files: list[str], split: str, source: str) -> None:
    """Refuse a split of which parts are missing, or which is there twice."""
    parts = [_SHARD.fullmatch(os.path.basename(file)) for file in files]
    counts = {int(part['count'] or 1) for part in parts}
    rows = [int(part['row'] or 0) for part in parts]
    if len(counts) > 1 or len(set(rows)) < len(rows):
        names = ', '.join(os.path.relpath(file, source) for file in files[:6])
        raise ValueError(f'{source} has the split {split!r} more than once: {names}')
    (count,) = counts
    if missing := sorted(set(range(count)) - set(rows)):
        names = ', '.join(f'{split}-{row:05}-of-{count:05}.parquet' for row in missing[:6])
        raise FileNotFoundError(
            f'{source} has {len(rows)} of the {count} files of the split {split!r}; missing: '
            f'{names}'
        )


def is_parquet(source: str) -> bool:
    """Whether a source is one of :func:`find_shards`: a Parquet file, a folder, a name of the hub.

    A missing file without suffix is taken for a name of the hub.
    """
    if source.endswith('.parquet') or os.path.isdir(source):
        return True
    return not os.path.splitext(source)[1] and not os.path.exists(source)


def _cached(source: str) -> Path:
    """Return the folder of a data set in the hub's cache."""
    if not _REPOSITORY.fullmatch(source):
        raise FileNotFoundError(f'there is no folder {source}')
    get = f'hf download {source} --repo-type dataset'
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise FileNotFoundError(
            f'there is no folder {source}, and the cache of the hub cannot be searched ({error}): '
            f'pip install huggingface_hub, then {get}'
        ) from error
    try:
        found = snapshot_download(source, repo_type='dataset', local_files_only=True)
    except (OSError, ValueError) as error:  # the hub's errors are of these kinds
        raise FileNotFoundError(
            f'there is neither a folder {source} nor such a data set in the cache of the hub: {get}'
        ) from error
    return Path(found)


def read_rows(file: str, columns: Sequence[str], what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read some columns of a Parquet file, row by row.

    Args:
        file: The file.
        columns: Names of columns, or of parts of them, e.g. ``'image.bytes'``.
        what: What needs it, for messages.

    Yields:
        Position of the row, and the row as a dict of plain values.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A column is missing, or the columns are too large to be read.
        ValueError: The file is damaged or cut short.
    """
    pyarrow = import_pyarrow(what)
    if not os.path.isfile(file):
        raise FileNotFoundError(f'there is no file {file}')
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            _check_columns(opened, file, columns)
            row = 0
            # Few rows at a time: a row can hold a picture.
            for batch in opened.iter_batches(batch_size=64, columns=list(columns)):
                for values in batch.to_pylist():
                    yield row, values
                    row += 1
            if row != opened.metadata.num_rows:
                raise fault(file, 'the number of rows', row, f'{opened.metadata.num_rows}')
    except DataError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f'{file} is not a whole Parquet file (cut short?): {reason}') from error


def _check_columns(opened: Any, file: str, columns: Sequence[str]) -> None:
    """Compare the columns with those that are asked for, before anything is decoded."""
    present = [opened.schema.column(number).path for number in range(len(opened.schema))]
    for column in columns:
        if not any(f'{path}.'.startswith(f'{column}.') for path in present):
            allowed = f'a column of the file; it has: {", ".join(present)[:300]}'
            raise fault(file, f'column {column!r}', MISSING, allowed)
    size = 0
    for group in range(opened.metadata.num_row_groups):
        parts = opened.metadata.row_group(group)
        for number in range(parts.num_columns):
            part = parts.column(number)
            if any(f'{part.path_in_schema}.'.startswith(f'{column}.') for column in columns):
                size += part.total_uncompressed_size
    if size > MAX_BYTES:
        raise fault(file, 'the size of the columns that are read', size, f'at most {MAX_BYTES}')
