"""Segmentations of ``instances.json`` and masks as PNGs: what they may hold, how they are decoded.

pycocotools reads and writes wrong memory where an RLE is damaged, and takes all memory for a point
far away. So a segmentation is checked before it gets there, whoever asks for the mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from nemo_mmseg.utils.faults import MISSING, fault
from nemo_mmseg.utils.images import MAX_PIXELS, decode_image, read_content
from nemo_mmseg.utils.rle import encode_mask

KINDS = 'a list of polygons (lists of numbers), an RLE (a dict), or a list of RLEs'
# What pycocotools does grows with the outline, which it draws with five points a pixel.
MAX_OUTLINE = 2**22
MAX_PARTS = 1000
# COCO has outlines of some thousand numbers, and crowds of some ten thousand runs.
MAX_NUMBERS = 2**17


def clean_segmentation(
    segmentation: Any, height: int, width: int, entry: str = 'annotation'
) -> list | dict:
    """Check a segmentation, and leave out degenerate polygons.

    A polygon may leave the image by its width or height on each side: COCO's leave it by some
    pixels, mosaics and crops by more; beyond that, a coordinate is damaged.

    Args:
        segmentation: Polygons; a compressed RLE (``counts`` a text) or an uncompressed one
            (``counts`` a list); or a list of RLEs, whose union is meant.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        entry: File and annotation, for the message. Defaults to no name.

    Returns:
        Polygons of at least three points, the RLE, or the list of RLEs.

    Raises:
        DataError: It is something else, or nothing is left, so that the mask would be empty.
    """
    parts = segmentation if type(segmentation) is list else [segmentation]
    if len(parts) > MAX_PARTS:
        raise fault(entry, 'segmentation', parts, f'at most {MAX_PARTS} polygons or RLEs')
    if height * width > MAX_PIXELS:
        raise fault(entry, 'the size of the image', [height, width], f'at most {MAX_PIXELS} pixels')
    if number_of_values(parts) > MAX_NUMBERS:
        raise fault(entry, 'segmentation', parts, f'at most {MAX_NUMBERS} numbers')
    kinds = set(map(type, parts))
    if kinds == {dict}:
        runs = [_runs(part, height, width, entry) for part in parts]
        if any(sum(some[1::2]) for some in runs):
            return segmentation
    elif kinds == {list}:
        if sum(_check_polygon(points, height, width, entry) for points in parts) > MAX_OUTLINE:
            _check_outline(parts, entry)
        if polygons := [points for points in parts if len(points) >= 6]:
            return polygons
    elif kinds:
        raise fault(entry, 'segmentation', segmentation, KINDS)
    raise fault(
        entry, 'segmentation', segmentation, 'not an empty one: a polygon of three points, or a run'
    )


def number_of_values(segmentation: list | dict) -> int:
    """Count the numbers of polygons and runs; of compressed runs the characters."""
    parts = segmentation if type(segmentation) is list else [segmentation]
    lists = (part.get('counts') if type(part) is dict else part for part in parts)
    return sum(len(one) for one in lists if type(one) in (list, str, bytes))


def _check_polygon(points: list, height: int, width: int, entry: str) -> float:
    """Return an upper bound of the length of its outline, in pixels."""
    if len(points) % 2 or not set(map(type, points)) <= {int, float}:
        raise fault(entry, 'a polygon of segmentation', points, 'an even number of numbers')
    if not points:
        return 0
    xs, ys = points[::2], points[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    inside = -width <= left and right <= 2 * width and -height <= top and bottom <= 2 * height
    # NaN is neither smaller nor larger than another number, so min and max can pass it over.
    if not inside or math.isnan(sum(points)):
        wrong = [x for x in xs if not -width <= x <= 2 * width]
        wrong += [y for y in ys if not -height <= y <= 2 * height]
        allowed = f'x from {-width} to {2 * width}, y from {-height} to {2 * height}'
        raise fault(entry, 'a coordinate of segmentation', wrong[0], allowed)
    return len(xs) * max(right - left, bottom - top)


def _check_outline(polygons: list[list], entry: str) -> None:
    """Refuse polygons that run to and fro so often that drawing them would take minutes."""
    length = 0.0
    for points in filter(None, polygons):
        corners = np.array(points, dtype=np.float64).reshape(-1, 2)
        length += np.abs(np.diff(corners, axis=0, append=corners[:1])).max(axis=1).sum().item()
    if length > MAX_OUTLINE:
        raise fault(
            entry, 'the outline of segmentation', length, f'at most {MAX_OUTLINE} pixels in all'
        )


def _runs(rle: dict, height: int, width: int, entry: str) -> list[int]:
    """Return the lengths of an RLE's runs, of zeros and ones in turn."""
    size, counts = rle.get('size', MISSING), rle.get('counts', MISSING)
    if type(size) is not list or set(map(type, size)) != {int} or size != [height, width]:
        raise fault(entry, 'size of segmentation', size, f'{[height, width]}, that of the image')
    if type(counts) in (str, bytes):
        runs = _decompressed(counts)
    elif type(counts) is list and set(map(type, counts)) <= {int}:
        runs = counts
    else:
        runs = None
    if runs is None or not runs or min(runs) < 0 or sum(runs) != height * width:
        raise fault(
            entry,
            'counts of segmentation',
            counts,
            f'whole numbers of at least 0, as a list or compressed, with the sum {height * width}',
        )
    return runs


def _decompressed(counts: str | bytes) -> list[int] | None:
    """Decode COCO's compressed run lengths; None where the text is none.

    A number has five bits a character, the lowest first; bit 5 says that another character
    follows, and bit 4 of the last one is the sign. From the fourth number on, it is the difference
    to the number before the last.
    """
    counts = counts.encode('utf-8', 'replace') if isinstance(counts, str) else counts
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes < 32)
    if not len(codes) or codes.min() < 0 or codes.max() >= 64 or not len(last):
        return None
    lengths = np.diff(last, prepend=-1)
    if last[-1] != len(codes) - 1 or lengths.max() > 6:
        return None
    first = last - lengths + 1
    place = 5 * (np.arange(len(codes)) - np.repeat(first, lengths))
    numbers = np.add.reduceat((codes & 31) << place, first)
    numbers -= ((codes[last] & 16) > 0) * (1 << 5 * lengths)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers.tolist()


@dataclass(frozen=True)
class MaskFile:
    """A mask that is an image file, in the place of a segmentation.

    No JSON can hold one: a reader makes it, who has looked at the path.

    Attributes:
        path: The file, local or of any MMEngine file backend.
    """

    path: str


def read_mask(path: str, height: int, width: int) -> np.ndarray:
    """Read a mask from an image file.

    Args:
        path: The file: a PNG of 8 bits or fewer, grey, with a palette or in colour.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        Mask ``(height, width)`` uint8: 1 where the file is not black, which may be nowhere.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, of another size, or another kind of file.
    """
    content = read_content(path)
    _refuse_other_than_mask(content, path)
    return decode_image(content, path, height, width).any(axis=2).view(np.uint8)


def _refuse_other_than_mask(content: bytes, path: str) -> None:
    """Refuse files in which black, as they are decoded, is not what no object covers.

    A JPEG is not black beside the object. Of alpha and of the low byte of 16 bits nothing is left.
    """
    # The head of a PNG: 8 bytes that name it, then IHDR with bits and kind of colour at its end.
    if not content.startswith(b'\x89PNG'):
        found = 'no PNG'
    elif content[24:25] == b'\x10':
        found = 'a PNG of 16 bits'
    elif content[25:26] in (b'\4', b'\6') or b'tRNS' in content[: content.find(b'IDAT')]:
        found = 'a PNG with alpha'
    else:
        return
    raise ValueError(f'the mask {path} is {found}; allowed: a PNG, 8 bits, black but on the object')


def encode_segmentation(segmentation: list | dict | MaskFile, height: int, width: int) -> dict:
    """Turn a segmentation into one compressed RLE, whose mask is the union of its parts.

    Args:
        segmentation: As in COCO's ``instances.json``, see :func:`clean_segmentation`; or the file
            of a mask.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        ``size`` and ``counts``.

    Raises:
        DataError: It is wrong or empty.
    """
    if isinstance(segmentation, MaskFile):
        return encode_mask(read_mask(segmentation.path, height, width))
    return _encode(clean_segmentation(segmentation, height, width), height, width)


def _is_polygons(segmentation: list | dict) -> bool:
    return isinstance(segmentation, list) and isinstance(segmentation[0], list)


def _encode(segmentation: list | dict, height: int, width: int) -> dict:
    """Encode what :func:`clean_segmentation` returned."""
    if _is_polygons(segmentation):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    rles = [
        coco_mask.frPyObjects(rle, height, width) if isinstance(rle['counts'], list) else rle
        for rle in parts
    ]
    return coco_mask.merge(rles) if len(rles) > 1 else rles[0]


def decode_segmentation(
    segmentation: list | dict | MaskFile,
    height: int,
    width: int,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decode polygons, an RLE or a list of RLEs, or read a mask.

    Args:
        segmentation: As in COCO's ``instances.json``, see :func:`clean_segmentation`; or the file
            of a mask.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        size: Height and width of an image that was stretched. Polygons are stretched and then
            drawn, RLEs and masks are drawn and then stretched, by nearest pixel. Defaults to the
            image's.

    Returns:
        Mask ``(height, width)``, or of ``size``, uint8, C order, 1 on the object. A small object
        can vanish by stretching.

    Raises:
        DataError: It is wrong or empty.
    """
    if isinstance(segmentation, MaskFile):
        mask = read_mask(segmentation.path, height, width)
    else:
        segmentation = clean_segmentation(segmentation, height, width)
        if size is not None and _is_polygons(segmentation):
            scale = size[1] / width, size[0] / height
            segmentation = [
                (np.reshape(points, (-1, 2)) * scale).flatten().tolist() for points in segmentation
            ]
            height, width = size
        rle = _encode(segmentation, height, width)
        # COCO's masks are column-major. OpenCV transposes ten times as fast as NumPy.
        mask = cv2.transpose(coco_mask.decode(rle).T)
    if size is not None and mask.shape != tuple(size):
        mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return mask
