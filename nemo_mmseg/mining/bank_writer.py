"""Writes banks.

:mod:`nemo_mmseg.negatives.bank` and :mod:`nemo_mmseg.negatives.expression_bank` say what they hold.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64

from nemo_mmseg.negatives import expression_bank
from nemo_mmseg.negatives.bank import FORMAT_VERSION, TENSORS
from nemo_mmseg.negatives.ranked_file import RANKINGS
from nemo_mmseg.utils.tensor_file import DTYPES, checksum, checksum_text, header_of

# Vectors of a million images are not in memory a second time.
_VECTORS_AT_A_TIME = 2**14


class RankingWriter:
    """Write a bank ranking by ranking in any order, so that no table is ever in memory.

    The header is written here and not by the safetensors library, which wants all tensors at once.

    Args:
        path: File to write. The caller renames it when it is complete.
        tensors: Names of the tensors, in the order of the file.
        whole: Small tensors by name. They are written last, so they may be filled meanwhile.
        num_rankings: Rankings R.
        num_candidates: Rows that a ranking can hold are below this.
        stored: Candidates M stored per ranking.
        metadata: What made the bank; JSON values.
        vectors: A large tensor by name, written as float16 at once. Defaults to none.
    """

    def __init__(
        self,
        path: str | Path,
        tensors: Sequence[str],
        whole: dict[str, np.ndarray],
        num_rankings: int,
        num_candidates: int,
        stored: int,
        metadata: dict[str, Any],
        vectors: dict[str, np.ndarray] | None = None,
    ) -> None:
        self._row_types = dict(
            neighbors=np.dtype('<u2' if num_candidates <= 2**16 else '<i4'),
            similarities=DTYPES['F16'],
        )
        # Of rows that nobody writes: zeros.
        empty = [checksum(bytes(stored * dtype.itemsize)) for dtype in self._row_types.values()]
        self._whole = dict(whole, row_checksums=np.tile(np.array(empty, '<u8'), (num_rankings, 1)))
        layout = {name: (array.dtype, array.shape) for name, array in self._whole.items()}
        layout |= {name: (DTYPES['F16'], array.shape) for name, array in (vectors or {}).items()}
        layout |= {name: (dtype, (num_rankings, stored)) for name, dtype in self._row_types.items()}
        self._layout = {name: layout[name] for name in tensors}
        self._metadata = metadata
        # The header is written last; this one is as long.
        checked = [name for name in tensors if name not in (*RANKINGS, 'row_checksums')]
        _, self._at = header_of(
            self._layout, self._metadata, dict.fromkeys(checked, checksum_text(b''))
        )
        last, (dtype, shape) = list(self._layout.items())[-1]
        self._file = open(path, 'wb')  # noqa: SIM115 (closed by __exit__)
        try:
            self._file.truncate(self._at[last] + dtype.itemsize * int(np.prod(shape)))
            self._checksums = {
                name: self._write_vectors(name, array) for name, array in (vectors or {}).items()
            }
        except BaseException:
            self._file.close()
            raise

    def _write_vectors(self, name: str, vectors: np.ndarray) -> str:
        """Write vectors a part at a time; return their checksum."""
        found = xxh3_64()
        self._file.seek(self._at[name])
        for start in range(0, len(vectors), _VECTORS_AT_A_TIME):
            part = vectors[start : start + _VECTORS_AT_A_TIME].astype('<f2').tobytes()
            found.update(part)
            self._file.write(part)
        self._file.flush()
        return found.hexdigest()

    def __enter__(self) -> RankingWriter:
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
        header, _ = header_of(self._layout, self._metadata, checksums | self._checksums)
        self._file.seek(0)
        self._file.write(header)
        self._file.flush()
        os.fsync(self._file.fileno())

    def write_rankings(
        self, rankings: np.ndarray, rows: np.ndarray, similarities: np.ndarray
    ) -> None:
        """Write some rankings.

        Args:
            rankings: Their indices ``(n,)``.
            rows: Rows of candidates ``(n, M)``, by falling similarity.
            similarities: ``(n, M)``.
        """
        tables = dict(neighbors=rows, similarities=similarities)
        for column, name in enumerate(RANKINGS):
            table = np.ascontiguousarray(tables[name], self._row_types[name])
            for ranking, values in zip(rankings.tolist(), table, strict=True):
                self._whole['row_checksums'][ranking, column] = checksum(values)
                at = self._at[name] + ranking * values.nbytes
                os.pwrite(self._file.fileno(), values.tobytes(), at)


class BankWriter(RankingWriter):
    """Write a bank of images.

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
        text, offsets = joined(image_names)
        self._own = np.zeros(len(sent_ids), '<f2')
        whole = dict(
            sent_ids=np.asarray(sent_ids, '<i8'),
            image_ids=np.asarray(image_ids, '<i8'),
            image_name_offsets=offsets,
            image_row=np.asarray(image_row, '<i4'),
            image_name_bytes=text,
            self_similarity=self._own,
        )
        super().__init__(
            path, TENSORS, whole, len(sent_ids), len(image_names), stored,
            dict(metadata, format=FORMAT_VERSION), dict(image_vectors=image_vectors),
        )  # fmt: skip

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
        self._own[expressions] = own
        self.write_rankings(expressions, rows, similarities)


class ExpressionBankWriter(RankingWriter):
    """Write a bank of expressions.

    Args:
        path: File to write. The caller renames it when it is complete.
        sent_ids: Sentence ids ``(E,)``, rising.
        image_row: Row ``(E,)`` of every expression's image.
        self_similarity: Similarity ``(E,)`` of every expression and its image.
        texts: The candidates ``(C,)``.
        text_sent_ids: Sentence id ``(C,)`` of each.
        num_images: Images I.
        stored: Candidates M stored per image.
        metadata: What made the bank; JSON values.
    """

    def __init__(
        self,
        path: str | Path,
        sent_ids: np.ndarray,
        image_row: np.ndarray,
        self_similarity: np.ndarray,
        texts: Sequence[str],
        text_sent_ids: np.ndarray,
        num_images: int,
        stored: int,
        metadata: dict[str, Any],
    ) -> None:
        text, offsets = joined(texts)
        whole = dict(
            sent_ids=np.asarray(sent_ids, '<i8'),
            text_sent_ids=np.asarray(text_sent_ids, '<i8'),
            text_offsets=offsets,
            image_row=np.asarray(image_row, '<i4'),
            self_similarity=np.asarray(self_similarity, '<f2'),
            text_bytes=text,
        )
        made = dict(metadata, format=expression_bank.FORMAT_VERSION)
        super().__init__(path, expression_bank.TENSORS, whole, num_images, len(texts), stored, made)

    def write(self, images: np.ndarray, rows: np.ndarray, similarities: np.ndarray) -> None:
        """Write the ranking of some images; see :meth:`write_rankings`."""
        self.write_rankings(images, rows, similarities)


def joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return texts in UTF-8, one after the other, and where each begins and the last one ends."""
    encoded = [str(text).encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype='<i8')
    return np.frombuffer(b''.join(encoded), 'u1'), offsets
