"""Writes a bank; see :mod:`nemo_mmseg.negatives.bank` for what it holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64

from nemo_mmseg.negatives.bank import FORMAT_VERSION, RANKINGS, TENSORS
from nemo_mmseg.utils.tensor_file import DTYPES, checksum, checksum_text, header_of

# Vectors of a million images are not in memory a second time.
_VECTORS_AT_A_TIME = 2**14


class BankWriter:
    """Write a bank expression by expression in any order, so that no table is ever in memory.

    The header is written here and not by the safetensors library, which wants all tensors at once.

    Args:
        path: File to write. The caller renames it when it is complete.
        sent_ids: Sentence ids ``(E,)``, rising.
        image_row: Row ``(E,)`` of every expression's own image.
        image_ids: Image ids ``(I,)``.
        image_names: File names ``(I,)``.
        image_vectors: Unit vectors ``(I, D)``.
        stored: Images M stored per expression.
        metadata: What made the bank; JSON values.
    """

    def __init__(
        self,
        path: str | Path,
        sent_ids: np.ndarray,
        image_row: np.ndarray,
        image_ids: np.ndarray,
        image_names: Sequence[str],
        image_vectors: np.ndarray,
        stored: int,
        metadata: dict[str, Any],
    ) -> None:
        names = [str(name).encode() for name in image_names]
        self._row_types = dict(
            neighbors=np.dtype('<u2' if len(names) <= 2**16 else '<i4'), similarities=DTYPES['F16']
        )
        # Of rows that nobody writes: zeros.
        empty = [checksum(bytes(stored * dtype.itemsize)) for dtype in self._row_types.values()]
        self._whole = dict(
            sent_ids=np.asarray(sent_ids, '<i8'),
            image_ids=np.asarray(image_ids, '<i8'),
            image_name_offsets=np.cumsum([0, *map(len, names)], dtype='<i8'),
            row_checksums=np.tile(np.array(empty, '<u8'), (len(sent_ids), 1)),
            image_row=np.asarray(image_row, '<i4'),
            image_name_bytes=np.frombuffer(b''.join(names), 'u1'),
            self_similarity=np.zeros(len(sent_ids), '<f2'),
        )
        layout = {name: (array.dtype, array.shape) for name, array in self._whole.items()}
        layout['image_vectors'] = DTYPES['F16'], image_vectors.shape
        for name, dtype in self._row_types.items():
            layout[name] = dtype, (len(sent_ids), stored)
        self._layout = {name: layout[name] for name in TENSORS}
        self._metadata = dict(metadata, format=FORMAT_VERSION)
        # The header is written last; this one is as long.
        checked = [name for name in TENSORS if name not in (*RANKINGS, 'row_checksums')]
        _, self._at = header_of(
            self._layout, self._metadata, dict.fromkeys(checked, checksum_text(b''))
        )
        last, (dtype, shape) = list(self._layout.items())[-1]
        self._file = open(path, 'wb')  # noqa: SIM115 (closed by __exit__)
        try:
            self._file.truncate(self._at[last] + dtype.itemsize * int(np.prod(shape)))
            self._checksum_of_vectors = self._write_vectors(image_vectors)
        except BaseException:
            self._file.close()
            raise

    def _write_vectors(self, image_vectors: np.ndarray) -> str:
        """Write the vectors a part at a time; return their checksum."""
        found = xxh3_64()
        self._file.seek(self._at['image_vectors'])
        for start in range(0, len(image_vectors), _VECTORS_AT_A_TIME):
            part = image_vectors[start : start + _VECTORS_AT_A_TIME].astype('<f2').tobytes()
            found.update(part)
            self._file.write(part)
        self._file.flush()
        return found.hexdigest()

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self._file:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        checksums = {
            name: checksum_text(array)
            for name, array in self._whole.items()
            if name != 'row_checksums'
        }
        for name, array in self._whole.items():
            self._file.seek(self._at[name])
            self._file.write(array.tobytes())
        checksums['image_vectors'] = self._checksum_of_vectors
        header, _ = header_of(self._layout, self._metadata, checksums)
        self._file.seek(0)
        self._file.write(header)
        self._file.flush()
        os.fsync(self._file.fileno())

    def write(
        self, expressions: np.ndarray, rows: np.ndarray, similarities: np.ndarray, own: np.ndarray
    ) -> None:
        """Write the ranking of some expressions.

        Args:
            expressions: Indices ``(n,)`` of the expressions.
            rows: Image rows ``(n, M)``, by falling similarity.
            similarities: ``(n, M)``.
            own: Similarity ``(n,)`` of each expression and its own image.
        """
        self._whole['self_similarity'][expressions] = own
        tables = dict(neighbors=rows, similarities=similarities)
        for column, name in enumerate(RANKINGS):
            table = np.ascontiguousarray(tables[name], self._row_types[name])
            for expression, values in zip(expressions.tolist(), table, strict=True):
                self._whole['row_checksums'][expression, column] = checksum(values)
                at = self._at[name] + expression * values.nbytes
                os.pwrite(self._file.fileno(), values.tobytes(), at)
