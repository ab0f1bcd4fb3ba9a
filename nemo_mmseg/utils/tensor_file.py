"""Memory-mapped files of named arrays: safetensors with one JSON entry of metadata."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# One key, with sorted JSON: readers and writers do not keep the order of several.
METADATA_KEY = 'nemo_mmseg'
# safetensors' names of the types.
DTYPES = {
    'I64': np.dtype('<i8'), 'I32': np.dtype('<i4'), 'U16': np.dtype('<u2'),
    'F32': np.dtype('<f4'), 'F16': np.dtype('<f2'), 'U8': np.dtype('u1'),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def header_of(layout: dict[str, tuple[np.dtype, Sequence[int]]], metadata: dict) -> dict[str, Any]:
    """Return the header of a file whose arrays follow one another without a gap.

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


class MappedFile:
    """Base of readers of such files: maps the arrays at first use in each process.

    A pickle or a copy of it holds the path alone, so workers map the file themselves; the pages are
    shared by all processes.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: At first use, if there is no such file. The message has the command that
            makes it.
        ERROR: At first use, if the file is cut short, damaged, or of another kind or version.
    """

    # What the file is, for messages, e.g. 'bank'.
    KIND: str
    # Names of the arrays that it must hold.
    ARRAYS: tuple[str, ...]
    # ``format`` in the metadata.
    FORMAT_VERSION: int
    # Command that makes the file, for messages.
    MAKE_COMMAND: str
    # Whether the NegativeMiningHook makes the file.
    MADE_BY_TRAINING = True
    # Class of the errors.
    ERROR: type[Exception]

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._mapped: tuple[dict[str, Any], dict[str, np.ndarray]] | None = None

    def __reduce__(self) -> tuple[type[MappedFile], tuple[Path]]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.path)!r})'

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file was made of and with; JSON values."""
        return self._map()[0]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, read-only."""
        return self._map()[1]

    def _map(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        if self._mapped is None:
            if not self.path.is_file():
                hint = ' (training does it by itself when the config has the NegativeMiningHook)'
                raise FileNotFoundError(
                    f'there is no {self.KIND} {self.path}. Make it with `{self.MAKE_COMMAND}`'
                    + (hint if self.MADE_BY_TRAINING else '')
                )
            with open(self.path, 'rb') as file:
                try:
                    self._mapped = self._read(file)
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    raise self.ERROR(
                        f'the {self.KIND} {self.path} is damaged, or no {self.KIND}: {error}. '
                        f'Delete it and make it again with `{self.MAKE_COMMAND}`'
                    ) from None
        return self._mapped

    def _read(self, file: BinaryIO) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), 'little')
        if length > size - 8:
            raise ValueError(f'cut short, it has {size} bytes')
        header = json.loads(file.read(length))
        metadata = json.loads(header['__metadata__'][METADATA_KEY])
        # Before the arrays: other versions may have other ones.
        if metadata['format'] != self.FORMAT_VERSION:
            raise ValueError(
                f'it has format {metadata["format"]}, this package reads {self.FORMAT_VERSION}'
            )
        entries = {name: header[name] for name in self.ARRAYS}
        whole = 8 + length + max(entry['data_offsets'][1] for entry in entries.values())
        if size != whole:
            raise ValueError(f'cut short, it has {size} of {whole} bytes')
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays = {}
        for name, entry in entries.items():
            dtype, (begin, end) = DTYPES[entry['dtype']], entry['data_offsets']
            count, place = (end - begin) // dtype.itemsize, 8 + length + begin
            arrays[name] = np.frombuffer(memory, dtype, count, place).reshape(entry['shape'])
        return metadata, arrays


class Names(Sequence):
    """File names in UTF-8, one after the other, decoded when asked for.

    Args:
        text: The bytes ``(n,)`` uint8.
        offsets: Where each name begins, and the last one ends ``(I + 1,)``.
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
