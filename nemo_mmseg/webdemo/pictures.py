"""A picture and some expressions from a page become masks, overlays and files to download."""

from __future__ import annotations

import os
import shutil
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import numpy as np

from nemo_mmseg.apis.inference import ReferringInferencer, write_result
from nemo_mmseg.evaluation.predictions import write_json
from nemo_mmseg.utils.images import decode_image, orientation_of, read_content
from nemo_mmseg.visualization.drawing import draw_mask, fit_image

# A photograph of 12 megapixels passes, with five expressions: each takes 25 bytes a pixel while it
# is answered.
MAX_PIXELS = 4096 * 4096
MAX_PIXELS_OF_ALL = 64_000_000
# The longer side is at most so many times the shorter one: networks shrink pictures.
MAX_ASPECT = 20
MIN_SIDE = 16
MAX_EXPRESSIONS, MAX_CHARACTERS = 10, 300
# Longer side of the pictures that the page shows; masks to download have the picture's own size.
SHOWN_SIDE = 1024
# Answers whose files stay on disk: a page fetches them right after its answer.
KEPT_ANSWERS = 20


@dataclass(frozen=True)
class SegmentedPicture:
    """The answer for a picture.

    Attributes:
        records: A dict for each expression, as in ``predictions.json``; see
            :class:`~nemo_mmseg.apis.ReferringInferencer`.
        verdicts: What to tell about each, e.g. ``'score 0.83'`` or ``'nothing found'``.
        overlays: The picture with each mask, ``(H', W', 3)`` uint8 RGB, at most 1024 pixels wide
            and high.
        files: The masks as PNG files of the picture's size, one an expression, then
            ``predictions.json``.
    """

    records: list[dict]
    verdicts: list[str]
    overlays: list[np.ndarray]
    files: list[Path]


class PictureSegmenter:
    """Segment uploaded pictures by a :class:`~nemo_mmseg.apis.ReferringInferencer`.

    Args:
        inferencer: The network; its config's protocol says what is found and what is not.
    """

    def __init__(self, inferencer: ReferringInferencer) -> None:
        self.inferencer = inferencer
        self._root = TemporaryDirectory(prefix='nemo_mmseg_demo_')
        self._folders: deque[str] = deque()

    def __call__(self, path: str | os.PathLike | None, text: str | None) -> SegmentedPicture:
        """Segment a picture.

        Args:
            path: The uploaded file; None where the page has no picture.
            text: Expressions, one a line.

        Raises:
            ValueError: Picture or expressions are missing, faulty or too large; the message is for
                the person at the page, and names no folder of the server.
        """
        if not path:
            raise ValueError('there is no picture: upload one or take one with the camera')
        name, expressions = Path(path).name, read_expressions(text)
        image = read_picture(path)
        check_number(len(expressions), image)
        result = self.inferencer(image, expressions, draw=False)
        records, masks = result['predictions'], result['masks']
        for record in records:
            record['image'] = name
        shown = fit_image(np.ascontiguousarray(image[..., ::-1]), SHOWN_SIDE)
        return SegmentedPicture(
            records=records,
            verdicts=[verdict_of(record) for record in records],
            overlays=[
                draw_mask(shown, fit_image(mask.astype(np.uint8), SHOWN_SIDE)) for mask in masks
            ],
            files=self._write(result),
        )

    def _write(self, result: dict) -> list[Path]:
        """Write the files of an answer into a folder of its own; the oldest answer's goes."""
        folder = mkdtemp(dir=self._root.name)
        self._folders.append(folder)
        if len(self._folders) > KEPT_ANSWERS:
            shutil.rmtree(self._folders.popleft(), ignore_errors=True)
        write_result(result, 0, folder)
        records, file = result['predictions'], Path(folder, 'predictions.json')
        write_json(file, dict(predictions=records))
        return [*(Path(folder, record['mask']) for record in records), file]


def read_expressions(text: str | None) -> list[str]:
    """Return the lines that are not blank.

    Raises:
        ValueError: There are none or too many, or one is too long.
    """
    lines = [line.strip() for line in (text or '').splitlines() if line.strip()]
    if not lines:
        raise ValueError('there is no expression: write one or more, one a line')
    if len(lines) > MAX_EXPRESSIONS:
        raise ValueError(f'these are {len(lines)} expressions; allowed are {MAX_EXPRESSIONS}')
    for line in lines:
        if len(line) > MAX_CHARACTERS:
            raise ValueError(
                f'the expression "{line[:30]}…" has {len(line)} characters; allowed are '
                f'{MAX_CHARACTERS}'
            )
    return lines


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Read an uploaded picture as viewers show it: an EXIF orientation is applied.

    Args:
        path: The file.

    Returns:
        ``(H, W, 3)`` uint8 BGR.

    Raises:
        ValueError: It is gone, no picture, damaged, or of a size that is not allowed.
    """
    name = Path(path).name
    try:
        content = read_content(str(path))
    except FileNotFoundError as error:  # those who run the server remove old uploads
        raise ValueError(f'{name} is no longer on the server: upload it again') from error
    except ValueError as error:
        raise ValueError(f'{name} cannot be read on the server: upload it again') from error
    stored = decode_image(content, name)
    height, width, _ = stored.shape
    size = f'{name} has {width}x{height} pixels'
    if height * width > MAX_PIXELS:
        raise ValueError(f'{size}; allowed are {MAX_PIXELS / 1e6:.1f} million')
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f'{size}; allowed are sides of {MIN_SIDE} pixels or more, of which none is more than '
            f'{MAX_ASPECT} times the other'
        )
    return turn_upright(stored, orientation_of(content))


def check_number(number: int, image: np.ndarray) -> None:
    """Refuse more expressions than the memory is meant for.

    Args:
        number: Of expressions.
        image: The picture ``(H, W, 3)``.

    Raises:
        ValueError: They are too many for a picture of this size.
    """
    height, width, _ = image.shape
    allowed = MAX_PIXELS_OF_ALL // (height * width)
    if number > allowed:
        raise ValueError(
            f'these are {number} expressions; a picture of {width}x{height} pixels takes '
            f'{allowed} at a time'
        )


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels as an EXIF orientation says.

    Args:
        image: ``(H, W, 3)``.
        orientation: 1 to 8.

    Returns:
        ``(H, W, 3)`` or ``(W, H, 3)``, contiguous.
    """
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def verdict_of(record: dict) -> str:
    """Tell what became of an expression.

    Args:
        record: Of ``predictions``, see :class:`~nemo_mmseg.apis.ReferringInferencer`.
    """
    if record['nothing_found']:
        return 'nothing found'
    if not record['area']:
        return 'nothing found (no pixel is above the threshold)'
    return f'score {record["score"]:.2f}'
