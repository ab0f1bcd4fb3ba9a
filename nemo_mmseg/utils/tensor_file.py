"""Memory-mapped files of named arrays: safetensors with two JSON entries of metadata.

One entry says what made the file. The other has a checksum (XXH3, 64 bits) of the header and of
each array that is compared when a process opens the file. Large arrays have checksums row by row,
which are an array themselves; a row is compared when a process first reads it.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

# With sorted JSON in each: readers and writers do not keep the order of several keys.
METADATA_KEY = 'nemo_mmseg'
CHECKSUM_KEY = 'xxh3'
# The header's own checksum, while it is computed.
_NOT_YET = b'0' * 16
# safetensors' names of the types.
DTYPES = {
    'I64': np.dtype('<i8'), 'U64': np.dtype('<u8'), 'I32': np.dtype('<i4'), 'U16': np.dtype('<u2'),
    'F32': np.dtype('<f4'), 'F16': np.dtype('<f2'), 'U8': np.dtype('u1'),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def checksum(row: bytes | np.ndarray) -> int:
    """Return the checksum, below 2**64, of bytes or of a contiguous array (50 GB/s in cache)."""
    return xxh3_64_intdigest(row)


def checksum_text(array: bytes | np.ndarray) -> str:
    """Return the checksum as it stands in a header, 16 hexadecimal digits."""
    return xxh3_64_hexdigest(array)


def header_of(
    layout: dict[str, tuple[np.dtype, Sequence[int]]],
    metadata: dict,
    checksums: dict[str, str],
    size: int | None = None,
) -> tuple[bytes, dict[str, int]]:
    """Return the header of a file whose arrays follow one another without a gap.

    Args:
        layout: Type and shape of each array, in the order of the file.
        metadata: JSON values.
        checksums: Of the arrays that are compared when the file is opened
            (:func:`checksum_text`), by name. The length of the header does not depend on them.
        size: Bytes of the header; by default as many as it takes, in steps of 8.

    Returns:
        The first bytes of the file, and where each array begins.
    """
    sums = dict(checksums, header=_NOT_YET.decode())
    texts = {
        METADATA_KEY: json.dumps(metadata, sort_keys=True),
        CHECKSUM_KEY: json.dumps(sums, sort_keys=True),
    }
    header: dict[str, Any] = {'__metadata__': texts}
    begins, end = {}, 0
    for name, (dtype, shape) in layout.items():
        begins[name], end = end, end + dtype.itemsize * int(np.prod(shape))
        header[name] = dict(
            dtype=_NAMES[dtype], shape=list(shape), data_offsets=[begins[name], end]
        )
    text = json.dumps(header, separators=(',', ':')).encode()
    size = len(text) + -len(text) % 8 + 8 if size is None else size
    text = text.ljust(size - 8)
    text = _with_checksum(text, _NOT_YET, checksum_text(text).encode())
    return (size - 8).to_bytes(8, 'little') + text, {n: size + b for n, b in begins.items()}


def _with_checksum(text: bytes, old: bytes, new: bytes) -> bytes:
    """Replace the checksum of a header in its text."""
    # As JSON in JSON has it.
    pattern = b'\\"header\\": \\"%s\\"'
    return text.replace(pattern % old, pattern % new, 1)


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
    # What its metadata must say of its ``kind``; None: nothing.
    CONTENT: str | None = None
    # Names of the arrays that it must hold, by ``format`` in the metadata.
    FORMATS: dict[int, tuple[str, ...]]
    # The first format with checksums.
    CHECKED_FROM: int
    # Arrays that are compared when `whole` is first asked for them, not when the file is opened.
    COMPARED_LATE: tuple[str, ...] = ()
    # Command that makes the file, for messages.
    MAKE_COMMAND: str
    # Whether the NegativeMiningHook makes the file.
    MADE_BY_TRAINING = True
    # Class of the errors.
    ERROR: type[Exception]

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._mapped: tuple[dict[str, Any], dict[str, np.ndarray]] | None = None
        # Checksums of arrays that were not compared yet.
        self._late: dict[str, str] = {}

    def __reduce__(self) -> tuple[type[MappedFile], tuple[Path]]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.path)!r})'

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file was made of and with; JSON values."""
        return self._map()[0]

    @property
    def checked(self) -> bool:
        """Whether the file has checksums; old ones have none."""
        return self.metadata['format'] >= self.CHECKED_FROM

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, read-only."""
        return self._map()[1]

    def whole(self, name: str) -> np.ndarray:
        """Return an array that is compared with its checksum the first time.

        Raises:
            ERROR: It differs.
        """
        array = self.arrays[name]
        if name in self._late:
            if checksum_text(array) != self._late[name]:
                raise self.damaged(f'the array {name} is not what was written')
            del self._late[name]
        return array

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
                except (
                    ValueError, LookupError, TypeError, AttributeError, OverflowError,
                    RecursionError,
                ) as error:  # fmt: skip
                    raise self.damaged(str(error)) from None
        return self._mapped

    def damaged(self, reason: str) -> Exception:
        """Return the error that says that the file is damaged, and what to do."""
        return self.ERROR(
            f'the {self.KIND} {self.path} is damaged, or no {self.KIND}: {reason}. '
            f'Delete it and make it again with `{self.MAKE_COMMAND}`'
        )

    def _read(self, file: BinaryIO) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), 'little')
        if length > size - 8:
            raise ValueError(f'cut short, it has {size} bytes')
        text = file.read(length)
        header = json.loads(text)
        metadata = json.loads(header['__metadata__'][METADATA_KEY])
        # Before the arrays: other kinds and versions may have other ones.
        if metadata.get('kind') != self.CONTENT:
            raise ValueError(f'its kind is {metadata.get("kind")!r}, not {self.CONTENT!r}')
        if metadata['format'] not in self.FORMATS:
            raise ValueError(
                f'it has format {metadata["format"]}, this package reads {max(self.FORMATS)}'
            )
        checksums = {}
        if metadata['format'] >= self.CHECKED_FROM or CHECKSUM_KEY in header['__metadata__']:
            checksums = json.loads(header['__metadata__'][CHECKSUM_KEY])
            own = checksums.pop('header')
            if checksum_text(_with_checksum(text, own.encode(), _NOT_YET)) != own:
                raise ValueError('its header is not what was written')
        entries = {name: header[name] for name in self.FORMATS[metadata['format']]}
        whole = 8 + length + max(entry['data_offsets'][1] for entry in entries.values())
        if size != whole:
            raise ValueError(f'cut short, it has {size} of {whole} bytes')
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays = {}
        for name, entry in entries.items():
            dtype, (begin, end) = DTYPES[entry['dtype']], entry['data_offsets']
            count, place = (end - begin) // dtype.itemsize, 8 + length + begin
            arrays[name] = np.frombuffer(memory, dtype, count, place).reshape(entry['shape'])
        for name, written in checksums.items():
            if name in self.COMPARED_LATE:
                self._late[name] = written
            elif checksum_text(arrays[name]) != written:
                raise ValueError(f'the array {name} is not what was written')
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
