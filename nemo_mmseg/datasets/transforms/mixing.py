"""CutMix, MixGen and copy-paste: augmentations that mix a sample with another one.

The NeMo paper compares with CutMix and MixGen without saying what they do to mask and expression.
What they do here is our definition.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.samplers import generator_of

from .expressions import SampleExpressions, single_expression

TRIES = 20  # draws before giving up: of another item that fits, or of a place for it


class MixSamples(BaseTransform, ABC):
    """Base of CutMix, MixGen and CopyPaste: mix a sample with another one, with a probability.

    Like ``NeMoMosaic``, it comes after ``SampleExpressions(num=1)`` and takes the place of the
    transforms that load and resize: both samples go through ``transforms``. The other sample is
    one of the same data set with another image, so training sees no other images than without it.
    (A ``leak_guard`` of the data set keeps tested images out.) If nothing can be mixed, the sample
    stays as it is.

    Required Keys:

    - what an item of :class:`BaseReferringDataset` has, with one expression
    - rng, epoch, pool, items

    Added Keys:

    - img: ``(H, W, 3)`` uint8
    - gt_seg_map: ``(H, W)`` uint8, 1 on the referent
    - mixed (if the sample was mixed): dict of kind (name of the transform) and img_path (of the
      other image)
    - what ``transforms`` adds

    Modified Keys (if the sample was mixed):

    - num_targets: 0 if nothing of the referent remains visible
    - num_distractors: -1, unknown

    Args:
        transforms: Transforms that load an image and its mask and resize them to one size.
        prob: Probability of mixing, in [0, 1]. Defaults to 0.5, NeMo's probability of a mosaic.
        min_visible: Share of the referent, in [0, 1], that must stay visible where it is covered.
            Defaults to 0.5.
    """

    def __init__(
        self, transforms: Sequence[dict], prob: float = 0.5, min_visible: float = 0.5
    ) -> None:
        if not (0 <= prob <= 1 and 0 <= min_visible <= 1):
            raise ValueError(f'{type(self).__name__}: {prob=} and {min_visible=} must be in [0, 1]')
        self.transforms = Compose(list(transforms))
        self.prob = prob
        self.min_visible = min_visible

    @abstractmethod
    def mix(self, results: dict, other: dict, rng: np.random.Generator) -> bool:
        """Change image, mask and expression of a sample in place, or leave them.

        Args:
            results: The sample, after ``transforms``.
            other: Another one of the same size, after ``transforms``.
            rng: The sample's generator.

        Returns:
            Whether anything was changed.
        """

    def fits(self, results: dict, other: dict) -> bool:
        """Decide whether two samples may be mixed, before any image is read.

        Args:
            results: The sample.
            other: Another one, of another image, with one expression.
        """
        return True

    def transform(self, results: dict) -> dict:
        """Mix the sample, or only apply ``transforms``."""
        name, rng = type(self).__name__, generator_of(results)
        single_expression(results, self)
        other = self._other(results, rng) if rng.random() < self.prob else None
        if other is None:
            return self.transforms(results)
        results, other = self.transforms(results), self.transforms(other)
        sizes = results['img'].shape, other['img'].shape
        if sizes[0] != sizes[1]:
            raise ValueError(f'{name}: `transforms` must resize to one size, not {sizes}')
        if self.mix(results, other, rng):
            results['mixed'] = dict(kind=name, img_path=other['img_path'])
            results['num_distractors'] = [-1]
            if not (results['gt_seg_map'] == 1).any():
                results['num_targets'] = [0]
        return results

    def _other(self, results: dict, rng: np.random.Generator) -> dict | None:
        """Draw an item of another image, with one of its expressions; None if none fits."""
        items = results['items']
        for _ in range(TRIES):
            other = items[rng.integers(len(items))]
            if other['img_id'] == results['img_id']:
                continue
            shared = {key: results[key] for key in ('rng', 'epoch', 'pool', 'items')}
            other.update(shared, seg_fields=[], reduce_zero_label=False)
            other = SampleExpressions(num=1)(other)
            if self.fits(results, other):
                return other
        return None

    def __repr__(self) -> str:
        settings = [f'{key}={value!r}' for key, value in vars(self).items() if key != 'transforms']
        return f'{type(self).__name__}({", ".join([*settings, f"transforms={self.transforms!r}"])})'


def hide(mask: np.ndarray, hidden: np.ndarray, min_visible: float) -> np.ndarray | None:
    """Take covered pixels out of a referent's mask.

    Args:
        mask: ``(H, W)`` uint8, 1 on the referent.
        hidden: ``(H, W)`` bool, the covered pixels.
        min_visible: Share of the referent that must stay visible, in [0, 1].

    Returns:
        The mask of what is still visible, or None if it is too little. No target is never too
        little.
    """
    visible = np.where(hidden & (mask == 1), np.uint8(0), mask)
    before, after = (np.count_nonzero(m == 1) for m in (mask, visible))
    return visible if after >= min_visible * before else None


@TRANSFORMS.register_module()
class CutMix(MixSamples):
    """Fill a rectangle with the same place of another image.

    Yun et al., *CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features*, ICCV 2019. As published, the rectangle has the share 1 - lambda of the image, with
    lambda ~ Beta(alpha, alpha). It has the image's proportions and a uniform centre, and is clipped
    at the border. What happens to mask and expression is our definition:

    - The expression stays. A label can be mixed by area, an expression cannot.
    - The mask loses what the rectangle covers. It gets nothing of the other referent, which the
      expression does not describe.
    - The referent must stay visible, see ``min_visible``.

    Args:
        transforms: See :class:`MixSamples`.
        prob: See :class:`MixSamples`. Defaults to 0.5.
        alpha: Of the Beta distribution, above 0. Defaults to 1 (uniform), as published.
        min_visible: See :class:`MixSamples`. If a rectangle leaves less, another one is drawn, and
            after some tries none. Defaults to 0.5.
    """

    def __init__(
        self,
        transforms: Sequence[dict],
        prob: float = 0.5,
        alpha: float = 1.0,
        min_visible: float = 0.5,
    ) -> None:
        super().__init__(transforms, prob, min_visible)
        if not 0 < alpha < np.inf:
            raise ValueError(f'CutMix: alpha={alpha} is no positive number')
        self.alpha = alpha

    def rectangle(self, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Draw the rows and columns of a rectangle in an image of this size."""
        side = np.sqrt(1 - rng.beta(self.alpha, self.alpha))
        window = []
        for length in (height, width):
            centre, half = rng.random() * length, side * length / 2
            window.append(slice(round(max(0, centre - half)), round(min(length, centre + half))))
        return tuple(window)

    def mix(self, results: dict, other: dict, rng: np.random.Generator) -> bool:
        """Fill a rectangle, and take it out of the mask."""
        mask = results['gt_seg_map']
        for _ in range(TRIES):
            window = self.rectangle(*mask.shape, rng)
            hidden = np.zeros(mask.shape, bool)
            hidden[window] = True
            visible = hide(mask, hidden, self.min_visible)
            if visible is not None:
                results['img'][window] = other['img'][window]
                results['gt_seg_map'] = visible
                return bool(hidden.any())
        return False


@TRANSFORMS.register_module()
class MixGen(MixSamples):
    """Blend two images and join their expressions.

    Hao et al., *MixGen: A New Multi-Modal Data Augmentation*, WACV 2023 workshop. As published, the
    image is lambda * image 1 + (1 - lambda) * image 2 with a fixed lambda, and expression 2 follows
    expression 1. The mask is our definition: the union of both, since the joint expression
    describes both referents. A text encoder with a short context cuts long pairs; the second
    referent stays in the mask then, because leaving such pairs out would favour short expressions.
    (In the demo 6 % of the pairs are cut, by one token on average.)

    ``num_targets`` becomes the sum of both; ``sent_ids`` and ``ref_ids`` stay those of the first.

    Args:
        transforms: See :class:`MixSamples`.
        prob: See :class:`MixSamples`. Defaults to 0.5.
        weight: lambda, the share of the first image, in (0, 1). Defaults to 0.5, as published.
    """

    def __init__(self, transforms: Sequence[dict], prob: float = 0.5, weight: float = 0.5) -> None:
        super().__init__(transforms, prob)
        if not 0 < weight < 1:
            raise ValueError(f'MixGen: weight={weight} is not in (0, 1)')
        self.weight = weight

    def mix(self, results: dict, other: dict, rng: np.random.Generator) -> bool:
        """Blend the images, join the expressions and the masks."""
        first, second = (sample['img'].astype(np.float32) for sample in (results, other))
        blend = self.weight * first + (1 - self.weight) * second
        results['img'] = np.rint(blend).astype(results['img'].dtype)
        masks = results['gt_seg_map'], other['gt_seg_map']
        # 255, which is not counted, gives way to what either expression describes.
        target = (masks[0] == 1) | (masks[1] == 1)
        results['gt_seg_map'] = np.where(target, np.uint8(1), np.maximum(*masks))
        results['expressions'] = [f'{results["expressions"][0]} {other["expressions"][0]}']
        results['num_targets'] = [results['num_targets'][0] + other['num_targets'][0]]
        return True


@TRANSFORMS.register_module()
class CopyPaste(MixSamples):
    """Cut the referent of another sample out and paste it into the image.

    After Ghiasi et al., *Simple Copy-Paste is a Strong Data Augmentation for Instance
    Segmentation*, CVPR 2021. The object is mirrored by chance, scaled and pasted without blending.
    What happens to mask and expression is our definition:

    - The expression stays, and the mask loses what the object covers. The pasted object's own
      expression is not used: it may name what was beside the object.
    - An object of the referent's category could make the expression ambiguous, so by default only
      objects of other categories are pasted. A no-target expression gets none.
    - The referent must stay visible, see ``min_visible``.

    Args:
        transforms: See :class:`MixSamples`.
        prob: See :class:`MixSamples`. Defaults to 0.5.
        scale: Lowest and highest factor on the object's size. Defaults to (0.5, 1.5).
        other_category: Whether to leave out objects of the referent's category. Defaults to True.
        min_visible: See :class:`MixSamples`. If an object leaves less, another place and size are
            drawn, and after some tries nothing is pasted. Defaults to 0.5.
    """

    def __init__(
        self,
        transforms: Sequence[dict],
        prob: float = 0.5,
        scale: Sequence[float] = (0.5, 1.5),
        other_category: bool = True,
        min_visible: float = 0.5,
    ) -> None:
        super().__init__(transforms, prob, min_visible)
        lowest, highest = scale
        if not 0 < lowest <= highest < np.inf:
            raise ValueError(f'CopyPaste: scale={scale} is not (lowest, highest), both above 0')
        self.scale = lowest, highest
        self.other_category = other_category

    def fits(self, results: dict, other: dict) -> bool:
        """Decide whether both have a referent, and the other's is of another category."""
        first, second = _categories(results), _categories(other)
        return bool(first and second) and not (self.other_category and first & second)

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
            # At most as large as the image, in its own proportions.
            limits = (whole / part for whole, part in zip(mask.shape, shape.shape))
            scale = min(rng.uniform(*self.scale), *limits)
            size = [max(1, round(scale * part)) for part in shape.shape]
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
    """Look up the categories of the targets of a sample's one expression."""
    return {sample['instances'][target]['category_id'] for target in sample['targets'][0]}
