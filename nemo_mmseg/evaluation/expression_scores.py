"""A table of intersection, union and what is known of every evaluated expression."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from .iou import image_name, iou_values, summarize

PREDICTIONS = 'predictions.json'
# what `DumpReferringResults` writes of an expression, by the name of our column
_RECORD_KEYS = dict(
    intersection='intersection',
    union='union',
    target_area='target_area',
    num_distractors='num_distractors',
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
        num = len(union)

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
            image_ids=np.full(num, int(sample.get('image_id', -1))),
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
                dtype = np.float64 if item.name == 'target_area' else np.int64
                columns[item.name] = np.concatenate(parts or [np.empty(0)]).astype(dtype)
        return cls(**columns, empty_union=empty_union, tie=tie)

    @classmethod
    def read(cls, path: str | os.PathLike) -> 'ExpressionScores':
        """Reads what `tools/test.py --out` wrote.

        Args:
            path: The folder, or its `predictions.json`.

        Raises:
            FileNotFoundError: If there is no such file; names folders below that have one.
            ValueError: If the file lacks what is compared: it holds no truth, or was written by an
                older version.
        """
        path = Path(path)
        file = path / PREDICTIONS if path.is_dir() else path
        if not file.is_file():
            below = sorted(str(found.parent) for found in path.glob(f'*/{PREDICTIONS}'))
            hint = f'; did you mean one of {below}?' if below else ''
            raise FileNotFoundError(f'there are no results of tools/test.py --out in {path}{hint}')
        content = json.loads(file.read_text(encoding='utf-8'))
        records = content['predictions']
        for record in records:
            for key in ('intersection', 'union', 'target_area'):
                if record.get(key) is None:
                    raise ValueError(
                        f'{file}: expression {record.get("sent_id")} has no `{key}`: it was '
                        'written without truth, or by an older version (run tools/test.py again)'
                    )

        def column(key: str) -> list:
            values = [record.get(_RECORD_KEYS[key]) for record in records]
            return [-1 if value is None else value for value in values]

        return cls.collect(
            [{key: column(key) for key in _RECORD_KEYS}], content['empty_union'], content['tie']
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
    def iou(self) -> np.ndarray:
        """(E,) float64 in 0..1."""
        return iou_values(self.intersection, self.union, self.empty_union)

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
