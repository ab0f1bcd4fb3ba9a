"""Writes a bank; see :mod:`nemo_mmseg.negatives.bank` for what it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_mmseg.negatives.bank import FORMAT_VERSION, TENSORS
from nemo_mmseg.utils.tensor_file import DTYPES, header_of

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
        self._self_similarity = np.zeros(len(sent_ids), '<f2')
        whole = dict(
            sent_ids=np.asarray(sent_ids, '<i8'),
            image_ids=np.asarray(image_ids, '<i8'),
            image_name_offsets=np.cumsum([0, *map(len, names)], dtype='<i8'),
            image_row=np.asarray(image_row, '<i4'),
            image_name_bytes=np.frombuffer(b''.join(names), 'u1'),
            self_similarity=self._self_similarity,
        )
        self._row_type = np.dtype('<u2' if len(names) <= 2**16 else '<i4')
        layout = {name: (array.dtype, array.shape) for name, array in whole.items()}
        layout['image_vectors'] = DTYPES['F16'], image_vectors.shape
        layout['neighbors'] = self._row_type, (len(sent_ids), stored)
        layout['similarities'] = DTYPES['F16'], (len(sent_ids), stored)
        header = header_of(
            {name: layout[name] for name in TENSORS}, dict(metadata, format=FORMAT_VERSION)
        )
        text = json.dumps(header, separators=(',', ':')).encode()
        text += b' ' * (-len(text) % 8)
        self._at = {name: 8 + len(text) + header[name]['data_offsets'][0] for name in TENSORS}
        end = 8 + len(text) + header[TENSORS[-1]]['data_offsets'][1]
        self._file = open(path, 'wb')  # noqa: SIM115 (closed by __exit__)
        self._file.write(len(text).to_bytes(8, 'little') + text)
        self._file.truncate(end)
        for name, array in whole.items():
            self._file.seek(self._at[name])
            self._file.write(array.tobytes())
        self._file.seek(self._at['image_vectors'])
        for start in range(0, len(image_vectors), _VECTORS_AT_A_TIME):
            part = image_vectors[start : start + _VECTORS_AT_A_TIME]
            self._file.write(part.astype('<f2').tobytes())
        self._file.flush()

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.seek(self._at['self_similarity'])
        self._file.write(self._self_similarity.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

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
        self._self_similarity[expressions] = own
        tables = dict(
            neighbors=rows.astype(self._row_type), similarities=similarities.astype('<f2')
        )
        for name, table in tables.items():
            for expression, values in zip(expressions.tolist(), table, strict=True):
                at = self._at[name] + expression * values.nbytes
                os.pwrite(self._file.fileno(), values.tobytes(), at)
