"""A horizontal flip that keeps the expression true."""

from __future__ import annotations

import re

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ..sample_index import generator_of

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
