"""Fit a sample into a fixed size, and mirror it with its expressions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.image.geometric import cv2_interp_codes
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.samplers import generator_of

# CLIP's mean colour as (blue, green, red), 0 to 255.
CLIP_MEAN_BGR = (104.0938, 116.7467, 122.7709)


def letterbox_matrix(height: int, width: int, size: tuple[int, int]) -> np.ndarray:
    """Map an image into a centred letterbox.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        size: Height and width of the letterbox, in pixels.

    Returns:
        Matrix ``(2, 3)`` float64 that takes (x, y, 1) of the image to (x, y) of the letterbox.
    """
    scale = min(size[0] / height, size[1] / width)
    left = (size[1] - scale * width) / 2
    top = (size[0] - scale * height) / 2
    return np.array([[scale, 0, left], [0, scale, top]])


@TRANSFORMS.register_module()
class Letterbox(BaseTransform):
    """Scale image and masks to fit ``size``, keep their aspect, and pad with one colour.

    CRIS prepares its images in this way, by one affine warp. NeMo's release stretches them, as
    mmcv's ``Resize(keep_ratio=False)`` does.

    Required Keys:

    - img
    - gt_seg_map (optional, when listed in seg_fields)

    Modified Keys:

    - img, gt_seg_map, img_shape

    Added Keys:

    - warp_matrix (nested lists ``(2, 3)`` of float: x, y of the image to x, y of the letterbox)
    - scale_factor, keep_ratio

    Args:
        size: Height and width of the result, in pixels.
        pad_val: Colour of the border in the channel order of the image, 0 to 255. Defaults to
            CLIP's mean.
        interpolation: For the image: ``'nearest'``, ``'bilinear'``, ``'bicubic'`` or ``'area'``.
            Defaults to ``'bicubic'``. Masks are interpolated linearly and cut at one half.
    """

    def __init__(
        self,
        size: Sequence[int],
        pad_val: Sequence[float] = CLIP_MEAN_BGR,
        interpolation: str = 'bicubic',
    ) -> None:
        if interpolation not in cv2_interp_codes:
            raise ValueError(f'Letterbox: {interpolation=} is none of {list(cv2_interp_codes)}')
        height, width = size
        self.size = int(height), int(width)
        self.pad_val = tuple(float(v) for v in pad_val)
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Warp image and masks."""
        height, width = results['img'].shape[:2]
        matrix = letterbox_matrix(height, width, self.size)
        results['img'] = cv2.warpAffine(
            results['img'],
            matrix,
            self.size[::-1],
            flags=cv2_interp_codes[self.interpolation],
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


# Also as one word: "topleft", "rightside", but not "upright" or "leftover".
_SIDES = re.compile(
    r'(?:\b|(?<=\btop|\bfar|\bmid)|(?<=\bupper|\blower)|(?<=\bbottom|\bmiddle))(left|right)'
    r'(?=(most|ward|wards|side|hand|ish|corner|end)?\b)',
    re.IGNORECASE,
)
# No swap makes these true: clock faces, "right behind" (it means "just"), abbreviations.
_NOT_SWAPPED = re.compile(
    r"o'?\s?clock"
    r'|\bright (behind|next|under|above|below|beside|in front|there|before|after|by)\b'
    r'|\b[lr]\b|\blft\b|\brt\b|\b[lr]hs\b',
    re.IGNORECASE,
)


def swap_sides(expression: str) -> str | None:
    """Exchange "left" and "right" in an expression.

    Args:
        expression: The expression.

    Returns:
        What is true of the mirrored image, or None where that is not certain.
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
    """Mirror image, masks and expressions together.

    "left" and "right" change places in the expressions. Where the result would not be certain ("3
    o'clock", "right behind"), nothing is mirrored. ``warp_matrix`` stays that of the image before
    the flip, as the test protocols expect.

    Required Keys:

    - img, expressions
    - gt_seg_map (optional, when listed in seg_fields)

    Modified Keys:

    - img, expressions, gt_seg_map

    Added Keys:

    - flip, flip_direction

    Args:
        prob: Probability of a flip, in [0, 1]. Defaults to 0.5.
        swap: True swaps the words. False flips only samples without "left" and "right". Defaults to
            True.
    """

    def __init__(self, prob: float = 0.5, swap: bool = True) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'ReferringFlip: prob={prob} is not in [0, 1]')
        self.prob = prob
        self.swap = swap

    def transform(self, results: dict) -> dict:
        """Draw, and flip."""
        results['flip'], results['flip_direction'] = False, None
        if generator_of(results).random() >= self.prob:
            return results
        mirrored = [swap_sides(expression) for expression in results['expressions']]
        if None in mirrored or (not self.swap and mirrored != results['expressions']):
            return results
        results['expressions'] = mirrored
        results['img'] = cv2.flip(results['img'], 1)
        for key in results.get('seg_fields', []):
            results[key] = np.ascontiguousarray(results[key][:, ::-1])
        results['flip'], results['flip_direction'] = True, 'horizontal'
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob}, swap={self.swap})'
