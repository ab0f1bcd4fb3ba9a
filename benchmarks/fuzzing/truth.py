"""What annotation files mean, read anew by the rules of the documents and nothing of the package.

A file is sound, or invalid, or in between: *loose* files may be refused, but where they are read
the answer must be this one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

MOST = 1e5  # a coordinate beyond this cannot be meant


class Invalid(Exception):
    """No reader may give an answer."""


@dataclass
class Truth:
    """What a data set must give.

    Attributes:
        samples: One entry per expression, sorted; an entry None stands for any value.
        loose: Why the files may also be refused; empty where they may not.
    """

    samples: list[tuple] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)


def digest(array: np.ndarray) -> str:
    """Return a digest of an array."""
    array = np.ascontiguousarray(array)
    return hashlib.sha1(f'{array.shape} {array.dtype}'.encode() + array.tobytes()).hexdigest()


class Reader:
    """Reads references and instances as Python objects.

    Args:
        sizes: Height and width of the image files by name.
        generalized: Whether a reference has any number of targets.
    """

    def __init__(self, sizes: dict[str, tuple[int, int]], generalized: bool) -> None:
        self.sizes = sizes
        self.generalized = generalized
        self.loose: list[str] = []

    def read(self, refs: Any, instances: Any, split: str = 'train') -> Truth:
        """Return what the split must give.

        Raises:
            Invalid: It must be refused.
        """
        need(isinstance(refs, list) and all(isinstance(ref, dict) for ref in refs), 'no list')
        need(isinstance(instances, dict), 'instances are no dict')
        tables = {}
        for name in ('images', 'annotations'):
            table = instances.get(name)
            need(isinstance(table, list), f'{name} are no list')
            need(all(isinstance(one, dict) for one in table), f'{name} hold other things')
            tables[name] = table
        self.images = self._table(tables['images'], ('file_name', 'height', 'width'))
        self.annotations = self._table(tables['annotations'], ('image_id', 'category_id'))
        self._look_at_the_rest(refs, instances)
        samples, empty = [], 0
        for ref in refs:
            if not isinstance(ref.get('split'), str):
                self.loose.append('a split is no text')
            if isinstance(ref.get('split'), str) and ref['split'] == split:
                found = self._reference(ref)
                empty += not found
                samples += found
            else:  # a reader may check them, too
                try:
                    self._reference(ref)
                except Invalid as error:
                    self.loose.append(f'another split: {error}')
        need(bool(samples) or empty, f'no reference of {split}')
        if not samples:
            self.loose.append('nothing is left')
        if len({sample[0] for sample in samples}) < len(samples):
            self.loose.append('sentence ids are repeated')
        ids = [one for one in (ref.get('ref_id') for ref in refs) if type(one) is int]
        if len(set(ids)) < len(ids):
            self.loose.append('reference ids are repeated')
        return Truth(sorted(samples, key=repr), self.loose)

    def integer(self, value: Any, what: str) -> int:
        """Return a whole number; an equal float and digits are loose."""
        if type(value) is int:
            need(-(2**63) <= value < 2**63, f'{what} is out of range')
            if value < 0:
                self.loose.append(f'{what} is negative')
            return value
        if isinstance(value, float) and value == value and abs(value) < 2**53 and value % 1 == 0:
            self.loose.append(f'{what} is a float')
            return int(value)
        if isinstance(value, (str, bytes)) and re.fullmatch(r'\s*-?\d{1,18}\s*', _text(value)):
            self.loose.append(f'{what} is text')
            return int(value)
        raise Invalid(f'{what} is no whole number')

    def _table(self, records: list, keys: tuple[str, ...]) -> dict[int, dict | None]:
        """Records by id; None where two differ."""
        found: dict[int, dict | None] = {}
        for record in records:
            if not {'id', *keys} <= record.keys():
                self.loose.append('a record lacks a field')
            try:
                number = self.integer(record.get('id'), 'id')
            except Invalid as error:
                self.loose.append(str(error))
                continue
            if number in found and found[number] != record:
                self.loose.append('two records of one id')
                found[number] = None
            elif number in found:
                self.loose.append('a record twice')
            else:
                found[number] = record
        return found

    def _look_at_the_rest(self, refs: list, instances: dict) -> None:
        """Fields that no sample depends on: a reader may check them."""

        def whole(value: Any) -> bool:
            return type(value) is int and abs(value) < 2**63

        def numbers(value: Any) -> bool:
            return isinstance(value, list) and all(map(_finite, value))

        def words(value: Any) -> bool:
            return isinstance(value, list) and all(isinstance(one, str) for one in value)

        plain = True
        for ref in refs:
            ids = ref.get('category_id')
            plain &= whole(ids) or (isinstance(ids, list) and all(map(whole, ids)))
            plain &= isinstance(ref.get('file_name'), str) and len(ref['file_name']) < 200
            plain &= isinstance(ref.get('sent_ids'), list) and all(map(whole, ref['sent_ids']))
            sentences = ref.get('sentences')
            for one in sentences if isinstance(sentences, list) else ():
                plain &= isinstance(one, dict) and words(one.get('tokens'))
                plain &= isinstance(one, dict) and isinstance(one.get('raw'), str)
        for one in (*instances['images'], *instances['annotations']):
            known = {
                'id': whole, 'image_id': whole, 'category_id': whole, 'height': whole,
                'width': whole, 'area': lambda x: _finite(x) and x >= 0, 'iscrowd': whole,
                'file_name': lambda x: isinstance(x, str),
                'bbox': lambda x: numbers(x) and len(x) == 4, 'segmentation': lambda x: True,
            }  # fmt: skip
            plain &= all(key in known and known[key](value) for key, value in one.items())
        for one in instances['annotations']:
            plain &= {'area', 'bbox', 'iscrowd', 'segmentation'} <= one.keys()
            try:
                image = self.images.get(self.integer(one.get('image_id'), 'image_id'))
                self._segmentation(one.get('segmentation'), image['height'], image['width'])
            except (Invalid, TypeError, KeyError):
                plain = False
        plain &= isinstance(instances.get('categories'), list)
        plain &= instances.keys() <= {'images', 'annotations', 'categories'}
        if not plain:
            self.loose.append('other fields are odd')

    def _reference(self, ref: dict) -> list[tuple]:
        for key in ('ref_id', 'image_id', 'ann_id', 'sentences'):
            need(key in ref, f'no {key}')
        self.integer(ref['ref_id'], 'ref_id')
        image = self.images.get(self.integer(ref['image_id'], 'image_id'))
        need(image is not None, 'no such image')
        name, shape = self._image(image)
        targets = [self._annotation(number, image) for number in self._ann_ids(ref['ann_id'])]
        whole = [one for one in targets if not one.get('iscrowd')] or targets
        mask = np.zeros(shape, np.uint8)
        for one in whole:
            mask |= self._segmentation(one.get('segmentation'), *shape)
        sentences = ref['sentences']
        need(isinstance(sentences, list), 'sentences are no list')
        need(bool(sentences) or self.generalized, 'no sentence')
        samples = []
        for one in sentences:
            need(isinstance(one, dict), 'a sentence is no dict')
            text = one.get('sent')
            need(isinstance(text, str) and bool(text.strip()), 'a sentence is empty')
            if any(ch < ' ' or '\ud800' <= ch <= '\udfff' for ch in text) or len(text) > 1000:
                self.loose.append('odd characters')
            number = self.integer(one.get('sent_id'), 'sent_id')
            distractors = self._distractors(image, whole)
            samples.append((number, text.strip(), name, digest(mask), len(whole), distractors))
        return samples

    def _ann_ids(self, ann_id: Any) -> list[int]:
        if not self.generalized:
            return [self.integer(ann_id, 'ann_id')]
        if not isinstance(ann_id, list):
            self.loose.append('ann_id is no list')
            ann_id = [ann_id]
        if ann_id in ([-1], [-1, -1]) and type(ann_id[0]) is int:
            return []
        ids = list(dict.fromkeys(self.integer(one, 'ann_id') for one in ann_id))
        if ids == [-1]:
            return []
        need(bool(ids) and -1 not in ids, 'ann_id mixes')
        return ids

    def _image(self, image: dict) -> tuple[str, tuple[int, int]]:
        name = image.get('file_name')
        need(isinstance(name, str) and bool(name.strip()), 'file_name')
        base = PurePosixPath(name).name
        if base != name:
            self.loose.append('a name with folders')
        need(base in self.sizes, 'no such file')
        shape = tuple(self.integer(image.get(key), key) for key in ('height', 'width'))
        need(shape == self.sizes[base], 'another size')
        return base, shape

    def _annotation(self, number: int, image: dict) -> dict:
        one = self.annotations.get(number)
        need(one is not None, 'no such annotation')
        same = self.integer(one.get('image_id'), 'image_id')
        need(same == self.integer(image['id'], 'id'), 'annotation of another image')
        self.integer(one.get('category_id'), 'category_id')
        if one.get('iscrowd', 0) not in (0, 1) or isinstance(one.get('iscrowd'), float):
            self.loose.append('iscrowd')
        return one

    def _distractors(self, image: dict, targets: list[dict]) -> int | None:
        """Other objects of the targets' categories; None where that cannot be told."""
        if not targets:
            return -1
        count: Counter = Counter()
        for one in self.annotations.values():
            if one is None or any(type(one.get(k)) is not int for k in ('image_id', 'category_id')):
                return None
            if one.get('iscrowd', 0) not in (0, 1):
                return None
            if not one.get('iscrowd'):
                count[one['image_id'], one['category_id']] += 1
        same = sum(count[image['id'], c] for c in {one['category_id'] for one in targets})
        return same - sum(not one.get('iscrowd') for one in targets)

    def _segmentation(self, value: Any, height: int, width: int) -> np.ndarray:
        need(type(height) is type(width) is int and 0 < height * width < 10**6, 'the size')
        if isinstance(value, dict):
            mask = self._rle(value, height, width)
        else:
            need(isinstance(value, list) and bool(value), 'no segmentation')
            if not any(isinstance(one, (list, dict)) for one in value):
                self.loose.append('a flat polygon')
                value = [value]
            if any(isinstance(one, dict) for one in value):
                self.loose.append('a list with run lengths')
            mask = np.zeros((height, width), np.uint8)
            for one in value:
                if isinstance(one, dict):
                    mask |= self._rle(one, height, width)
                else:
                    mask |= self._polygon(one, height, width)
        need(bool(mask.any()), 'an empty mask')
        return mask

    def _polygon(self, points: Any, height: int, width: int) -> np.ndarray:
        need(isinstance(points, list), 'a polygon is no list')
        if len(points) < 6:  # degenerate: left out
            if points and not (len(points) % 2 == 0 and all(map(_finite, points))):
                self.loose.append('an odd point')
            return np.zeros((height, width), np.uint8)
        need(len(points) % 2 == 0, 'a polygon of odd length')
        need(all(map(_finite, points)), 'a coordinate is no number')
        most = max(map(abs, points))
        need(most <= MOST, 'a coordinate is far off')
        if most > 2 * max(height, width) or min(points) < -1 or most > max(height, width) + 1:
            self.loose.append('a coordinate is outside')
        codes = coco_mask.frPyObjects([[float(x) for x in points]], height, width)
        return coco_mask.decode(codes)[..., 0]

    def _rle(self, code: dict, height: int, width: int) -> np.ndarray:
        size = code.get('size')
        need(isinstance(size, list) and len(size) == 2, 'size')
        need([self.integer(one, 'size') for one in size] == [height, width], 'another size')
        counts = code.get('counts')
        if isinstance(counts, (str, bytes)):
            counts = decode_counts(counts)
        need(isinstance(counts, list) and bool(counts), 'counts')
        need(all(type(one) is int and 0 <= one <= height * width for one in counts), 'a run')
        need(sum(counts) == height * width, 'the sum of the runs')
        if any(one == 0 for one in counts[1:]):
            self.loose.append('a run of no pixel')
        if code.keys() > {'size', 'counts'}:
            self.loose.append('more in the code')
        values = np.arange(len(counts)) % 2
        return np.repeat(values, counts).astype(np.uint8).reshape(width, height).T


def decode_counts(text: str | bytes) -> list[int]:
    """Decode COCO's compressed run lengths.

    Each number is groups of five bits, least first, each plus 48; bit 6 says that another follows,
    and bit 5 of the last group is the sign. From the fourth number on it is the difference to the
    one before the last.
    """
    content = text.encode('latin-1', 'replace') if isinstance(text, str) else text
    counts: list[int] = []
    value = shift = 0
    for byte in content:
        group = byte - 48
        need(0 <= group < 64, 'a character of no run length')
        value |= (group & 31) << (5 * shift)
        shift += 1
        need(shift < 12, 'a run length without an end')
        if group & 32:
            continue
        if group & 16:
            value -= 1 << (5 * shift)
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value = shift = 0
    need(shift == 0, 'a run length is cut')
    return counts


def need(condition: bool, what: str) -> None:
    """Raise :class:`Invalid` unless something holds."""
    if not condition:
        raise Invalid(what)


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode('latin-1')
