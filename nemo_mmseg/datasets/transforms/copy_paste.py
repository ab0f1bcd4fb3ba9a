"""Copy-paste for referring segmentation: another image's referent is pasted as a distraction."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from mmseg.registry import TRANSFORMS

from .mix_samples import TRIES, MixSamples, hide
from .ramps import is_number


@TRANSFORMS.register_module()
class CopyPaste(MixSamples):
    """The referent of another sample is cut out and pasted into this image.

    After Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation for Instance
    Segmentation", CVPR 2021: the object is mirrored by chance, scaled, pasted without blending, and
    covers what lies beneath. Their data have a label an object; what happens to a sentence is our
    definition:

    - the sentence stays, and the mask loses what the object covers: the object is one more thing
      that the sentence does not mean. Its own sentence is not used: it may speak of what was beside
      it;
    - an object of the referent's category might make "the man" ambiguous, so by default only
      objects of other categories are pasted, and a sample without a referent gets none;
    - the referent must stay visible, see ``min_visible``.

    Args:
        plain: See :class:`MixSamples`.
        prob: See :class:`MixSamples`. Defaults to 0.5.
        scale: Range of the factor on the object's size in its own image. Defaults to (0.5, 1.5).
        other_category: Whether objects of the referent's category are left out. Defaults to True.
        min_visible: Share of the referent that stays visible; where an object would leave less,
            another place and size are drawn, and after some tries nothing is pasted. Defaults to
            0.5.

    Raises:
        ValueError: ``scale`` is no range of positive numbers, a share is no number in [0, 1], or
            ``other_category`` is neither True nor False.
    """

    def __init__(
        self,
        plain: Sequence[dict],
        prob: float = 0.5,
        scale: Sequence[float] = (0.5, 1.5),
        other_category: bool = True,
        min_visible: float = 0.5,
    ) -> None:
        super().__init__(plain, prob)
        self.check_share('min_visible', min_visible)
        two = isinstance(scale, Sequence) and len(scale) == 2 and all(map(is_number, scale))
        if not two or not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f'CopyPaste: scale={scale!r} must be two numbers above 0, (lowest, highest)'
            )
        if not isinstance(other_category, bool):
            raise ValueError(f'CopyPaste: other_category={other_category!r} must be True or False')
        self.scale = tuple(scale)
        self.other_category = other_category
        self.min_visible = min_visible

    def fits(self, results: dict, other: dict) -> bool:
        """Whether both have a referent, and the other's is of another category."""
        ours, theirs = _categories(results), _categories(other)
        return bool(ours and theirs) and not (self.other_category and ours & theirs)

    def mix(self, results: dict, other: dict, rng: np.random.Generator) -> bool:
        """Paste the object, and take it out of the mask."""
        mask = results['gt_seg_map']
        rows, columns = (np.flatnonzero((other['gt_seg_map'] == 1).any(axis)) for axis in (1, 0))
        if not rows.size:  # an object so small that the resize lost it
            return False
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        image, shape = other['img'][box], (other['gt_seg_map'][box] == 1).astype(np.uint8)
        if rng.random() < 0.5:
            image, shape = cv2.flip(image, 1), cv2.flip(shape, 1)
        for _ in range(TRIES):
            # no larger than the image, in its own proportions
            limits = (whole / own for whole, own in zip(mask.shape, shape.shape))
            scale = min(rng.uniform(*self.scale), *limits)
            size = [max(1, round(scale * own)) for own in shape.shape]
            alpha = cv2.resize(shape, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) == 1
            top, left = (int(rng.integers(m - s + 1)) for m, s in zip(mask.shape, size))
            window = slice(top, top + size[0]), slice(left, left + size[1])
            hidden = np.zeros(mask.shape, bool)
            hidden[window] = alpha
            visible = hide(mask, hidden, self.min_visible)
            if visible is not None:
                pasted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
                results['img'][window][alpha] = pasted[alpha]
                results['gt_seg_map'] = visible
                return True
        return False


def _categories(sample: dict) -> set[int]:
    """Categories of the targets of a sample's one expression."""
    return {sample['instances'][target]['category_id'] for target in sample['targets'][0]}
