"""The other images of a mosaic: which ones, and how they fill their cells."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import cv2
import numpy as np

from nemo_mmseg.mining.bank import NegativeBank

from ..pool import ImagePool

# Handles of banks in this process. They are not kept in the transform, which is pickled to workers.
_OPEN_BANKS: OrderedDict[tuple[str, str], NegativeBank] = OrderedDict()


def open_bank(path: str, fingerprint: str) -> NegativeBank:
    """The bank at ``path``, checked once in each process to be that of the data set."""
    key = str(path), fingerprint
    if key not in _OPEN_BANKS:
        bank = NegativeBank(path)
        bank.check(fingerprint)
        _OPEN_BANKS[key] = bank
    return _OPEN_BANKS[key]


def random_names(
    pool: ImagePool,
    own: int | None,
    number: int,
    rng: np.random.Generator,
    taken: Sequence[str] = (),
    avoid: Sequence[str] = (),
) -> list[str]:
    """Names of ``number`` images of the pool, other than the item's own and those taken.

    Those to avoid come last; a pool with too few gives some images twice.

    Args:
        pool: The images.
        own: Row of the item's own image; None where the pool does not have it.
        number: How many names.
        rng: The sample's generator.
        taken: Names that are in the mosaic already.
        avoid: Names of images that may show the referent.
    """
    if len(pool) < 2:
        raise ValueError('a mosaic needs a second image, but the pool holds one')
    taken, avoid = set(taken), set(avoid)
    # A handful more than needed is drawn, so that a large pool is never enumerated.
    size = min(len(pool), number + len(taken) + len(avoid) + 1)
    candidates = rng.choice(len(pool), size=size, replace=False)
    free = [row for row in candidates if row != own and pool.names[row] not in taken]
    free = sorted(free, key=lambda row: pool.names[row] in avoid)[:number]
    while len(free) < number:
        row = int(rng.integers(len(pool)))
        if row != own:
            free.append(row)
    return [str(pool.names[row]) for row in free]


def crop_to_aspect(image: np.ndarray, height: int, width: int, place: float) -> np.ndarray:
    """The largest part of an image with the aspect of a cell.

    Args:
        image: (H, W, 3).
        height: Of the cell, in pixels.
        width: Of the cell, in pixels.
        place: Where along the longer side, in [0, 1): 0 is the left or top end.

    Returns:
        A view of the image.
    """
    full_height, full_width = image.shape[:2]
    part_height = max(1, min(full_height, round(full_width * height / width)))
    part_width = max(1, min(full_width, round(full_height * width / height)))
    top = int(place * (full_height - part_height + 1))
    left = int(place * (full_width - part_width + 1))
    return image[top : top + part_height, left : left + part_width]


def blurred(image: np.ndarray, strength: float) -> np.ndarray:
    """An image under a Gaussian.

    Args:
        image: (H, W, 3) uint8.
        strength: Standard deviation, as a share of the shorter side.

    Returns:
        An image like it.
    """
    return cv2.GaussianBlur(image, (0, 0), strength * min(image.shape[:2]))
