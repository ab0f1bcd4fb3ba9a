"""Fits an image into a fixed size without changing its aspect."""

from __future__ import annotations

import re
from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.samplers import generator_of

INTERPOLATIONS = dict(
    nearest=cv2.INTER_NEAREST,
    bilinear=cv2.INTER_LINEAR,
    bicubic=cv2.INTER_CUBIC,
    area=cv2.INTER_AREA,
)
# CLIP's mean colour, in the order of mmcv's images (blue, green, red), 0 to 255.
CLIP_MEAN_BGR = (104.0938, 116.7467, 122.7709)


def letterbox_matrix(height: int, width: int, size: tuple[int, int]) -> np.ndarray:
    """The affine map from an image into a centred letterbox.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        size: Height and width of the letterbox, in pixels.

    Returns:
        Matrix (2, 3) float64 that takes (x, y, 1) of the image to (x, y) of the letterbox.
    """
    scale = min(size[0] / height, size[1] / width)
    left = (size[1] - scale * width) / 2
    top = (size[0] - scale * height) / 2
    return np.array([[scale, 0, left], [0, scale, top]])


@TRANSFORMS.register_module()
class Letterbox(BaseTransform):
    """Scale image and mask to fit ``size``, centred, in one affine warp; one colour fills the rest.

    This is how CRIS prepares its images; NeMo's release
    stretches instead, for which mmcv's ``Resize(keep_ratio=False)`` serves.

    Required Keys:

    - img
    - gt_seg_map (optional, when listed in seg_fields)

    Modified Keys:

    - img, gt_seg_map, img_shape

    Added Keys:

    - warp_matrix ((2, 3) nested lists of float: original x, y to letterboxed x, y), scale_factor,
    keep_ratio

    Args:
        size: Height and width of the result, in pixels.
        pad_val: Colour of the border in the channel order of the image, 0 to 255. Defaults to
            CLIP's mean.
        interpolation: For the image: ``'nearest'``, ``'bilinear'``, ``'bicubic'`` or ``'area'``.
            Defaults to ``'bicubic'``. The mask is interpolated linearly and cut at one half.

    Raises:
        ValueError: The size or the interpolation is unknown.
    """

    def __init__(
        self,
        size: Sequence[int],
        pad_val: Sequence[float] = CLIP_MEAN_BGR,
        interpolation: str = 'bicubic',
    ) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'Letterbox needs size=(height, width), not {size}')
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f'interpolation {interpolation!r} is none of {list(INTERPOLATIONS)}')
        self.size = int(size[0]), int(size[1])
        self.pad_val = tuple(float(v) for v in pad_val)
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Warp image and mask."""
        height, width = results['img'].shape[:2]
        matrix = letterbox_matrix(height, width, self.size)
        results['img'] = cv2.warpAffine(
            results['img'],
            matrix,
            self.size[::-1],
            flags=INTERPOLATIONS[self.interpolation],
            borderValue=self.pad_val,
        )
        for key in results.get('seg_fields', []):
            results[key] = self._warp_mask(results[key], matrix)
        results['img_shape'] = self.size
        results['warp_matrix'] = matrix.tolist()
        results['scale_factor'] = (float(matrix[0, 0]), float(matrix[1, 1]))
        results['keep_ratio'] = True
        return results

    def _warp_mask(self, mask: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        layers = np.atleast_3d(mask).transpose(2, 0, 1) * np.uint8(255)
        warped = [cv2.warpAffine(layer, matrix, self.size[::-1]) >= 128 for layer in layers]
        return np.stack(warped, axis=-1).astype(np.uint8).reshape(*self.size, *mask.shape[2:])

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, pad_val={self.pad_val}, '
            f'interpolation={self.interpolation!r})'
        )


# Also run together, as telegrams have it: "topleft", "rightside"; but not "upright" or "leftover".
_SIDES = re.compile(
    r'(?:\b|(?<=\btop|\bfar|\bmid)|(?<=\bupper|\blower)|(?<=\bbottom|\bmiddle))(left|right)'
    r'(?=(most|ward|wards|side|hand|ish|corner|end)?\b)',
    re.IGNORECASE,
)
# A side that no swap makes true: a clock's face, "right behind" (which means "just"),
# abbreviations, writing.
_NOT_SWAPPED = re.compile(
    r"o'?\s?clock"
    r'|\bright (behind|next|under|above|below|beside|in front|there|before|after|by)\b'
    r'|\b[lr]\b|\blft\b|\brt\b|\b[lr]hs\b',
    re.IGNORECASE,
)


def swap_sides(expression: str) -> str | None:
    """Exchange "left" and "right" in an expression.

    Args:
        expression: The text.

    Returns:
        The text that is true of the mirrored image, or None where none can be told for sure.
    """
    if _NOT_SWAPPED.search(expression):
        return None

    def other(match: re.Match) -> str:
        word = match[0]
        swapped = 'right' if word.lower() == 'left' else 'left'
        return swapped.capitalize() if word[0].isupper() else swapped

    return _SIDES.sub(other, expression)


@TRANSFORMS.register_module()
class ReferringFlip(BaseTransform):
    """Mirror image, masks and expressions together, or leave the sample alone.

    "left" and "right" change places in the expressions; where that cannot be told for sure ("3
    o'clock", "right behind"), nothing is flipped.

    Required Keys:

    - img, expressions
    - gt_seg_map (optional)

    Modified Keys:

    - img, expressions, gt_seg_map

    Added Keys:

    - flip, flip_direction (``warp_matrix`` stays that of the image before the flip, as the test
      protocols expect)

    Args:
        prob: Chance of a flip. Defaults to 0.5.
        swap: True swaps the words; False flips only samples without "left" and "right". Defaults to
            True.

    Raises:
        ValueError: ``prob`` is not in [0, 1].
    """

    def __init__(self, prob: float = 0.5, swap: bool = True) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'ReferringFlip needs 0 <= prob <= 1, not {prob}')
        self.prob = prob
        self.swap = swap

    def transform(self, results: dict) -> dict:
        """Draw, and flip."""
        results['flip'], results['flip_direction'] = False, None
        if generator_of(results).random() >= self.prob:
            return results
        texts = [swap_sides(text) for text in results['expressions']]
        if None in texts or (not self.swap and texts != results['expressions']):
            return results
        results['expressions'] = texts
        results['img'] = cv2.flip(results['img'], 1)
        for key in results.get('seg_fields', []):
            results[key] = np.ascontiguousarray(results[key][:, ::-1])
        results['flip'], results['flip_direction'] = True, 'horizontal'
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob}, swap={self.swap})'
