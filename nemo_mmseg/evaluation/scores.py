"""A table of intersection, union and what is known of every evaluated expression."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from .generalized_counts import GeneralizedCounts
from .iou import image_name, iou_values, precision_key, summarize

PREDICTIONS = 'predictions.json'
# what `DumpReferringResults` calls an expression's value, where our column has another name
_RECORD_KEYS = dict(
    sent_ids='sent_id',
    ref_ids='ref_id',
    image_ids='image_id',
    images='image',
    expressions='expression',
)


@dataclass
class ExpressionScores:
    """Values per expression (E of them), for totals and for slices by difficulty.

    Args:
        intersection: (E,) int64, pixels.
        union: (E,) int64, pixels.
        target_area: (E,) float64, share of the image (0..1) that the truth covers.
        num_distractors: (E,) int64, other objects of the referent's category; -1 if unknown.
        sent_ids: (E,) int64; -1 if unknown.
        ref_ids: (E,) int64; -1 if unknown.
        image_ids: (E,) int64; -1 if unknown.
        images: E names of the images (path, else the id).
        expressions: E sentences, '' if unknown.
        empty_union: IoU where truth and prediction are both empty.
        tie: `'>='` or `'>'`: whether an IoU of exactly X counts in Pr@X.
    """

    intersection: np.ndarray
    union: np.ndarray
    target_area: np.ndarray
    num_distractors: np.ndarray
    sent_ids: np.ndarray
    ref_ids: np.ndarray
    image_ids: np.ndarray
    images: list[str] = field(default_factory=list)
    expressions: list[str] = field(default_factory=list)
    empty_union: float = 1.0
    tie: str = '>='

    thresholds: ClassVar[tuple[float, ...]] = (0.5, 0.6, 0.7, 0.8, 0.9)  # those of Pr@X, unasked

    @staticmethod
    def entry(
        sample: dict,
        intersection: np.ndarray,
        union: np.ndarray,
        area: np.ndarray,
        pixels: np.ndarray,
    ) -> dict:
        """One data sample's part of the table: small, and it pickles between ranks.

        Args:
            sample: Data sample as a dict.
            intersection: (N,) pixels.
            union: (N,) pixels.
            area: (N,) pixels of the true masks.
            pixels: (N,) pixels of the image.
        """
        num, image_id = len(union), sample.get('image_id')

        def integers(key: str) -> np.ndarray:
            values = sample.get(key)
            return np.full(num, -1) if values is None else np.asarray(values, dtype=np.int64)

        return dict(
            intersection=np.asarray(intersection, dtype=np.int64),
            union=np.asarray(union, dtype=np.int64),
            target_area=np.asarray(area, dtype=np.float64) / pixels,
            num_distractors=integers('num_distractors'),
            sent_ids=integers('sent_ids'),
            ref_ids=integers('ref_ids'),
            image_ids=np.full(num, -1 if image_id is None else int(image_id)),
            images=[image_name(sample)] * num,
            expressions=list(sample.get('expressions') or [''] * num),
        )

    @classmethod
    def collect(
        cls, entries: Sequence[dict], empty_union: float = 1.0, tie: str = '>='
    ) -> 'ExpressionScores':
        """Joins the entries of all data samples.

        Args:
            entries: What `entry` made, in any order.
            empty_union: IoU where truth and prediction are both empty.
            tie: `'>='` or `'>'`.

        Raises:
            ValueError: If an entry's columns differ in length; names the image.
        """
        columns = {}
        for item in fields(cls):
            if item.name in ('empty_union', 'tie'):
                continue
            parts = [entry[item.name] for entry in entries]
            for part, entry in zip(parts, entries, strict=True):
                if len(part) != len(entry['union']):
                    raise ValueError(
                        f'{(entry["images"] or ["?"])[0]}: {len(part)} values of {item.name} for '
                        f'{len(entry["union"])} expressions'
                    )
            if item.name in ('images', 'expressions'):
                columns[item.name] = [value for part in parts for value in part]
            else:
                dtype = dict(target_area=np.float64, is_empty=bool, said_empty=bool)
                columns[item.name] = np.concatenate(parts or [np.empty(0)]).astype(
                    dtype.get(item.name, np.int64)
                )
        return cls(**columns, empty_union=empty_union, tie=tie)

    @classmethod
    def read(cls, path: str | os.PathLike) -> 'ExpressionScores':
        """Reads what `tools/test.py --out` wrote.

        Args:
            path: The folder, or its `predictions.json`.

        Returns:
            The values; :class:`GeneralizedScores` where expressions may describe nothing.

        Raises:
            FileNotFoundError: If there is no such file; names folders below that have one.
            ValueError: If the file is another one, or lacks what is compared: it holds no truth, or
                was written by an older version.
        """
        path = Path(path)
        file = path / PREDICTIONS if path.is_dir() else path
        if not file.is_file():
            below = sorted(str(found.parent) for found in path.glob(f'*/{PREDICTIONS}'))
            hint = f'; did you mean one of {below}?' if below else ''
            raise FileNotFoundError(f'there are no results of tools/test.py --out in {path}{hint}')
        content = json.loads(file.read_text(encoding='utf-8'))
        records = content.get('predictions') if isinstance(content, dict) else None
        if not isinstance(records, list):
            raise ValueError(f'{file} is no list of predictions: tools/test.py --out writes one')
        for record in records:
            for key in ('intersection', 'union', 'target_area'):
                if record.get(key) is None:
                    raise ValueError(
                        f'{file}: expression {record.get("sent_id")} has no `{key}`: it was '
                        'written without truth, or by an older version (run tools/test.py again)'
                    )

        if content.get('no_target') is not None:
            cls = GeneralizedScores
        keys = [item.name for item in fields(cls) if item.name not in ('empty_union', 'tie')]

        def column(key: str) -> list:
            values = [record.get(_RECORD_KEYS.get(key, key)) for record in records]
            return [-1 if value is None else value for value in values]

        return cls.collect(
            [{key: column(key) for key in keys}], content['empty_union'], content['tie']
        )

    def take(self, rows: np.ndarray) -> 'ExpressionScores':
        """The values of some expressions, in another order if need be.

        Args:
            rows: (n,) int64.
        """
        columns = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, list):
                value = [value[row] for row in rows]
            elif isinstance(value, np.ndarray):
                value = value[rows]
            columns[item.name] = value
        return type(self)(**columns)

    def __len__(self) -> int:
        return len(self.union)

    @property
    def num_images(self) -> int:
        """Number of different images."""
        return len(set(self.images))

    @property
    def image_index(self) -> np.ndarray:
        """(E,) int64, the image of each expression: its place 0..I-1 among the sorted names."""
        return np.unique(self.images, return_inverse=True)[1].astype(np.int64)

    @property
    def iou(self) -> np.ndarray:
        """(E,) float64 in 0..1."""
        return iou_values(self.intersection, self.union, self.empty_union)

    def ratios(
        self, thresholds: Sequence[float] | None = None
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Each measure by the two values of an expression whose sums are divided.

        Args:
            thresholds: IoU values X of Pr@X; None for the usual ones.

        Returns:
            Measure to the pair of (E,) values; the overall IoU is the first, the mean the second.
        """
        iou, ones = self.iou, np.ones(len(self))
        hits = {
            precision_key(x): (iou >= x if self.tie == '>=' else iou > x, ones)
            for x in (self.thresholds if thresholds is None else thresholds)
        }
        return {'oIoU': (self.intersection, self.union), 'mIoU': (iou, ones), **hits}

    def summary(
        self,
        thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
        where: np.ndarray | None = None,
    ) -> dict[str, float]:
        """oIoU, mIoU and Pr@X in per cent, of all expressions or of a slice.

        Args:
            thresholds: IoU values X of Pr@X.
            where: (E,) bool, the expressions that count; None for all.
        """
        rows = slice(None) if where is None else np.asarray(where, dtype=bool)
        return summarize(
            self.intersection[rows], self.union[rows], thresholds, self.tie, self.empty_union
        )


@dataclass
class GeneralizedScores(ExpressionScores):
    """Values of expressions that may describe nothing, as `GeneralizedReferringIoU` counts them.

    Args:
        is_empty: (E,) bool, nothing is described.
        said_empty: (E,) bool, the network says so.
    """

    is_empty: np.ndarray = field(kw_only=True)
    said_empty: np.ndarray = field(kw_only=True)

    thresholds: ClassVar[tuple[float, ...]] = (0.7, 0.8, 0.9)

    @property
    def _counts(self) -> GeneralizedCounts:
        return GeneralizedCounts(self.intersection, self.union, self.said_empty, self.is_empty)

    @property
    def iou(self) -> np.ndarray:
        """(E,) float64 in 0..1."""
        return self._counts.iou

    def ratios(
        self, thresholds: Sequence[float] | None = None
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """See :meth:`ExpressionScores.ratios` and :meth:`GeneralizedCounts.ratios`."""
        return self._counts.ratios(self.thresholds if thresholds is None else thresholds)

    def summary(
        self,
        thresholds: Sequence[float] | None = None,
        where: np.ndarray | None = None,
    ) -> dict[str, float]:
        """See :meth:`ExpressionScores.summary` and :meth:`GeneralizedCounts.summary`."""
        rows = np.arange(len(self)) if where is None else np.flatnonzero(where)
        return self.take(rows)._counts.summary(thresholds or self.thresholds)
