"""Memory-mapped files of named arrays: safetensors with one JSON entry of metadata."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# One key, with sorted JSON: readers and writers do not keep the order of several.
METADATA_KEY = 'nemo_mmseg'
# safetensors' names of the types.
DTYPES = {
    'I64': np.dtype('<i8'), 'I32': np.dtype('<i4'), 'U16': np.dtype('<u2'),
    'F16': np.dtype('<f2'), 'U8': np.dtype('u1'),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def header_of(layout: dict[str, tuple[np.dtype, Sequence[int]]], metadata: dict) -> dict[str, Any]:
    """The header of a file whose arrays follow one another without a gap.

    Args:
        layout: Type and shape of each array, in the order of the file.
        metadata: JSON values.

    Returns:
        What safetensors writes as JSON before the arrays.
    """
    header: dict[str, Any] = {'__metadata__': {METADATA_KEY: json.dumps(metadata, sort_keys=True)}}
    end = 0
    for name, (dtype, shape) in layout.items():
        begin, end = end, end + dtype.itemsize * int(np.prod(shape))
        header[name] = dict(dtype=_NAMES[dtype], shape=list(shape), data_offsets=[begin, end])
    return header


class TensorFile:
    """Maps the arrays of a file, after a look at whether it is whole.

    Args:
        path: The file.
        names: Arrays it must hold.
        version: Its ``format`` in the metadata.
        what: What it is, for error messages, e.g. ``'bank'``.
        again: How to make it anew, a sentence for error messages.
        error: Class of the errors.

    Attributes:
        metadata: What made the file.
        arrays: The arrays by name: read-only, pages shared by all processes.

    Raises:
        error: The file is cut short, damaged, of another kind or of another version.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        version: int,
        what: str,
        again: str,
        error: type[Exception],
    ) -> None:
        with open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), 'little')
            if not 2 <= length <= size - 8:
                raise error(f'the {what} {path} is cut short or no {what} ({size} bytes). {again}')
            try:
                header = json.loads(file.read(length))
                self.metadata = json.loads(header['__metadata__'][METADATA_KEY])
                found = self.metadata['format']
                # Other versions may have other arrays.
                entries = {name: _entry(header[name]) for name in names if found == version}
            except (ValueError, KeyError, TypeError) as fault:
                raise error(
                    f'the header of the {what} {path} is damaged ({fault!r}). {again}'
                ) from None
            if found != version:
                raise error(
                    f'the {what} {path} has format {found}, this package reads {version}. {again}'
                )
            wanted = 8 + length + max(end for *_, end in entries.values())
            if size != wanted:
                raise error(f'the {what} {path} is cut short: {size} of {wanted} bytes. {again}')
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.arrays = {
            name: np.frombuffer(memory, dtype, int(np.prod(shape)), 8 + length + begin).reshape(
                shape
            )
            for name, (dtype, shape, begin, _) in entries.items()
        }


class Names(Sequence):
    """File names in UTF-8, one after the other, decoded when asked for.

    Args:
        text: The bytes (n,) uint8.
        offsets: Where each name begins, and the last one ends (I + 1,).
    """

    def __init__(self, text: np.ndarray, offsets: np.ndarray) -> None:
        self._text = text
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:
        row = int(row)  # a row of the bank is uint16, and 65,535 + 1 would be 0
        if not 0 <= row < len(self):
            raise IndexError(f'image row {row} of {len(self)}')
        return self._text[self._offsets[row] : self._offsets[row + 1]].tobytes().decode()


def _entry(entry: dict) -> tuple[np.dtype, tuple, int, int]:
    dtype, shape = DTYPES[entry['dtype']], tuple(map(int, entry['shape']))
    begin, end = map(int, entry['data_offsets'])
    if end - begin != dtype.itemsize * int(np.prod(shape)) or begin < 0:
        raise ValueError('offsets and shape disagree')
    return dtype, shape, begin, end
