"""Draw masks and words on arrays: RGB uint8 in, RGB uint8 out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, which colour-blind readers tell apart
GT_COLOR = (0, 158, 115)
PREDICTION_COLOR = (230, 100, 0)
NEUTRAL_COLOR = (90, 90, 90)
IGNORED_COLOR = (120, 120, 120)


def draw_mask(
    image: np.ndarray,
    mask: np.ndarray,
    color: Sequence[int] = PREDICTION_COLOR,
    alpha: float = 0.45,
) -> np.ndarray:
    """Lay a coloured mask over an image.

    Its border is dark outside and coloured inside, so that it shows on any background.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        mask: ``(H, W)`` bool or 0/1.
        color: RGB.
        alpha: Share of the colour inside the mask, 0..1.

    Returns:
        New ``(H, W, 3)`` uint8 RGB.
    """
    mask = np.asarray(mask) > 0
    drawn = image.copy()
    blend = (1 - alpha) * image[mask].astype(np.float32) + alpha * np.array(color, np.float32)
    drawn[mask] = np.rint(blend).astype(np.uint8)
    borders, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(image.shape[:2]) / 400))
    cv2.drawContours(drawn, borders, -1, (0, 0, 0), 2 * width + 1)
    cv2.drawContours(drawn, borders, -1, tuple(int(value) for value in color), width)
    return drawn


@lru_cache(maxsize=16)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans in a size in pixels. It comes with matplotlib and knows most alphabets."""
    import matplotlib  # here: it is large, and few runs write on pictures

    path = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(path, size)


def wrap_text(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Break a text, which may hold line breaks, into lines at spaces; a longer word is cut.

    Args:
        text: The text.
        width: Greatest length of a line, in pixels.
        font: The font that measures it.

    Returns:
        At least one line.
    """
    lines = []
    for paragraph in text.split('\n'):
        line = ''
        for word in paragraph.split():
            longer = f'{line} {word}'.strip()
            if font.getlength(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while font.getlength(word) > width and len(word) > 1:
                cut = len(word)
                while cut > 1 and font.getlength(word[:cut]) > width:
                    cut -= 1
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        lines.append(line)
    return lines or ['']


def add_caption(
    image: np.ndarray,
    text: str,
    background: Sequence[int] = (30, 30, 30),
    font_size: int | None = None,
    num_lines: int | None = None,
) -> np.ndarray:
    """Put a strip of text on top of an image.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        text: Wrapped to the width; may hold line breaks.
        background: RGB of the strip.
        font_size: In pixels; None chooses by the image's width.
        num_lines: Height of the strip in lines; None for as many as needed. Longer texts end in an
            ellipsis.

    Returns:
        ``(H + strip, W, 3)`` uint8 RGB.
    """
    width = image.shape[1]
    font_size = font_size or caption_size(width)
    font = load_font(font_size)
    lines = wrap_text(text, max(width - font_size, 1), font)
    if num_lines is not None and len(lines) > num_lines:
        lines = [*lines[: num_lines - 1], lines[num_lines - 1] + ' …']
    step = round(font_size * 1.3)
    height = step * (num_lines or len(lines)) + font_size // 2
    strip = Image.new('RGB', (width, height), tuple(background))
    draw = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        draw.text((font_size // 2, font_size // 4 + row * step), line, (255, 255, 255), font)
    return np.concatenate([np.asarray(strip), image])


def caption_size(width: int) -> int:
    """Return the font size in pixels that suits an image of some width."""
    return int(np.clip(width / 26, 9, 28))


def draw_label(
    image: np.ndarray,
    text: str,
    place: tuple[int, int],
    color: Sequence[int] = NEUTRAL_COLOR,
    font_size: int = 12,
) -> None:
    """Write one line of text on a coloured plate into an image, in place.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, changed.
        text: The text.
        place: ``(x, y)`` of the plate's upper left corner, in pixels.
        color: RGB of the plate.
        font_size: In pixels.
    """
    font = load_font(font_size)
    size = (round(font.getlength(text)) + font_size // 2, round(1.35 * font_size))
    plate = Image.new('RGB', size, tuple(color))
    ImageDraw.Draw(plate).text((font_size // 4, 0), text, (255, 255, 255), font)
    left, top = (max(0, int(value)) for value in place)
    space = image[top : top + size[1], left : left + size[0]]
    space[:] = np.asarray(plate)[: space.shape[0], : space.shape[1]]


def make_grid(tiles: Sequence[np.ndarray], num_cols: int, gap: int = 6) -> np.ndarray:
    """Set pictures out in rows on white; each row and column is as large as its largest picture.

    Args:
        tiles: ``(h, w, 3)`` uint8 RGB, of any sizes; at least one.
        num_cols: Pictures in a row.
        gap: Pixels between two pictures.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    num_cols = max(1, min(num_cols, len(tiles)))
    rows = [tiles[start : start + num_cols] for start in range(0, len(tiles), num_cols)]
    heights = [max(tile.shape[0] for tile in row) for row in rows]
    widths = [max(row[col].shape[1] for row in rows if col < len(row)) for col in range(num_cols)]
    size = (sum(heights) + gap * (len(rows) - 1), sum(widths) + gap * (num_cols - 1), 3)
    sheet = np.full(size, 255, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for tile, width in zip(row, widths, strict=False):
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
            left += width + gap
        top += height + gap
    return sheet


def fit_image(image: np.ndarray, longest: int | None) -> np.ndarray:
    """Shrink a picture whose longer side is above a limit.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8; a mask as uint8 too.
        longest: Pixels; None leaves the picture as it is.
    """
    if longest is None or max(image.shape[:2]) <= longest:
        return image
    scale = longest / max(image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    mode = cv2.INTER_AREA if image.ndim == 3 else cv2.INTER_NEAREST_EXACT
    return cv2.resize(image, size, interpolation=mode)
