"""What augmentations have in common that mix a sample with another one of the data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.samplers import generator_of
from nemo_mmseg.datasets.transforms.nemo.schedule import is_number

from .expressions import SampleExpressions

TRIES = 20  # draws of another item before one that fits is given up


class MixSamples(BaseTransform, ABC):
    """Base of CutMix, MixGen and CopyPaste: with a probability, mixes two prepared samples.

    It stands where a pipeline reads and resizes its image, after ``SampleExpressions``, as
    ``NeMoMosaic`` does; both samples go through ``transforms``. Other samples come from the
    same data set, and from another image: nothing is seen that is not trained on anyway. To keep
    images that another data set tests on out of all this, give the data set a ``leak_guard``. Where
    nothing can be mixed, the sample stays as it is.

    Required Keys:

    - img_path, height, width, img_id, instances, targets, expressions (one)
    - rng, epoch, pool, items (the data sets of this package give them)
    - whatever ``transforms`` needs

    Added Keys:

    - img ((H, W, 3) uint8), gt_seg_map ((H, W) uint8, 1 on the referent), and what
      ``transforms`` adds
    - mixed, where it is: dict of kind (the name of the transform) and img_path (of the other image)

    Modified Keys (where they are there, and the sample is mixed):

    - num_targets: 0 where nothing of the referents is visible any more
    - num_distractors: -1, unknown; what is like the referent may have come in or gone

    Args:
        transforms: Transforms that read an image and its mask and bring them to the input's size.
        prob: Chance that a sample is mixed. Defaults to 0.5, NeMo's chance of a mosaic, so that a
            comparison is one of kinds and not of amounts.

    Raises:
        ValueError: ``prob`` is no number in [0, 1].
    """

    def __init__(self, transforms: Sequence[dict], prob: float = 0.5) -> None:
        self.check_share('prob', prob)
        self.transforms = Compose(list(transforms))
        self.prob = prob

    def check_share(self, name: str, value: Any) -> None:
        """Refuse an argument that is no number in [0, 1]."""
        if not is_number(value) or not 0 <= value <= 1:
            raise ValueError(f'{type(self).__name__}: {name}={value!r} is no number in [0, 1]')

    @abstractmethod
    def mix(self, results: dict, other: dict, rng: np.random.Generator) -> bool:
        """Change image, mask and expression of a sample in place, or leave them.

        Args:
            results: The sample, after ``transforms``.
            other: Another one, after ``transforms``, of the same size.
            rng: The sample's generator.

        Returns:
            Whether anything was changed.
        """

    def fits(self, results: dict, other: dict) -> bool:
        """Whether two samples may be mixed; asked before any image is read.

        Args:
            results: The sample.
            other: Another one, of another image, with one expression.
        """
        return True

    def transform(self, results: dict) -> dict:
        """Mix the sample, or leave it plain."""
        rng = generator_of(results)
        if rng.random() >= self.prob:
            return self.transforms(results)
        name = type(self).__name__
        if len(results['expressions']) != 1:
            raise ValueError(
                f'{name} needs one expression, not {len(results["expressions"])}: put '
                'SampleExpressions(num=1) before it'
            )
        if 'items' not in results:
            raise KeyError(f"{name} mixes samples of this package's data sets; here is none")
        other = self._other(results, rng)
        if other is None:
            return self.transforms(results)
        results, other = self.transforms(results), self.transforms(other)
        if results['img'].shape != other['img'].shape:
            raise ValueError(
                f'{name}: `transforms` must bring images to one size, but '
                f'{results["img_path"]} has {results["img"].shape} and {other["img_path"]} '
                f'{other["img"].shape}'
            )
        if self.mix(results, other, rng):
            results['mixed'] = dict(kind=name, img_path=other['img_path'])
            _keep_counts_true(results)
        return results

    def _other(self, results: dict, rng: np.random.Generator) -> dict | None:
        """An item of another image, with one of its expressions; None where none was found."""
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


def _keep_counts_true(results: dict) -> None:
    """Let the counts of a mixed sample's one expression say what its image shows."""
    if 'num_distractors' in results:
        results['num_distractors'] = [-1]
    if 'num_targets' in results and not (results['gt_seg_map'] == 1).any():
        results['num_targets'] = [0]


def hide(mask: np.ndarray, hidden: np.ndarray, keep: float) -> np.ndarray | None:
    """Take covered pixels out of a referent's mask.

    Args:
        mask: (H, W) uint8, 1 on the referent.
        hidden: (H, W) bool, the pixels that something else covers.
        keep: Share of the referent, 0 to 1, that must stay visible.

    Returns:
        The mask of what is still visible, or None where it is too little. A referent that is not
        there cannot be hidden.
    """
    visible = np.where(hidden & (mask == 1), np.uint8(0), mask)
    before, after = (np.count_nonzero(m == 1) for m in (mask, visible))
    return visible if after >= keep * before else None


@TRANSFORMS.register_module()
class CutMix(MixSamples):
    """A rectangle is filled with the same place of another image (CutMix, ICCV 2019).

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features": the rectangle has the share 1 - lambda of the image, lambda ~ Beta(alpha, alpha), the
    image's proportions and a uniform centre, and is clipped at the border; labels are mixed by
    area. The NeMo paper compares with CutMix without saying what it does to mask and sentence. Here
    (our definition):

    - the sentence stays. A label can be mixed by area, a sentence cannot, and what the other
      sentence describes is in the rectangle by chance only;
    - the mask loses what the rectangle covers, and gets nothing of the other referent, which the
      sentence does not describe;
    - a sentence must describe something to be seen: where the rectangle leaves less than
      ``min_visible`` of the referent, another one is drawn, and after some tries none.

    Args:
        transforms: See :class:`MixSamples`.
        prob: See :class:`MixSamples`. Defaults to 0.5.
        alpha: Of the Beta distribution. Defaults to 1 (uniform), as published.
        min_visible: Share of the referent that stays visible. Defaults to 0.5.

    Raises:
        ValueError: ``alpha`` is no positive number, or a share is none in [0, 1].
    """

    def __init__(
        self,
        transforms: Sequence[dict],
        prob: float = 0.5,
        alpha: float = 1.0,
        min_visible: float = 0.5,
    ) -> None:
        super().__init__(transforms, prob)
        self.check_share('min_visible', min_visible)
        if not is_number(alpha) or alpha <= 0:
            raise ValueError(f'CutMix: alpha={alpha!r} is no positive number')
        self.alpha = alpha
        self.min_visible = min_visible

    def rectangle(self, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns of a drawn rectangle in an image of that size."""
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
    """Two images are blended, their sentences put one after the other (MixGen, WACV 2023 workshop).

    Hao et al., "MixGen: A New Multi-Modal Data Augmentation": image = lambda * image 1 +
    (1 - lambda) * image 2 with lambda fixed at 0.5, text = text 1 followed by text 2, so that all
    that is said stays true. The NeMo paper compares with MixGen without saying what it does to the
    mask. Here (our definition) the mask is the union of both: the joint sentence describes both
    referents, and both can be seen. A text encoder with a short context cuts long pairs (CRIS reads
    17 or 22 tokens), of which the second referent then stays in the mask: leaving long pairs out
    would favour short sentences. Of the pairs of RefShapes+ 6 % are cut in the demo (16 tokens), by
    one token on average.

    ``sent_ids``, ``ref_ids`` and the like stay those of the first sample, but ``num_targets`` is
    the sum of both, as the mask shows both.

    Args:
        transforms: See :class:`MixSamples`.
        prob: See :class:`MixSamples`. Defaults to 0.5.
        weight: lambda, share of the first image. Defaults to 0.5, as published.

    Raises:
        ValueError: ``weight`` is no number in (0, 1).
    """

    def __init__(self, transforms: Sequence[dict], prob: float = 0.5, weight: float = 0.5) -> None:
        super().__init__(transforms, prob)
        if not is_number(weight) or not 0 < weight < 1:
            raise ValueError(f'MixGen: weight={weight!r} is no number in (0, 1)')
        self.weight = weight

    def mix(self, results: dict, other: dict, rng: np.random.Generator) -> bool:
        """Blend the images, join the sentences and the masks."""
        first, second = (sample['img'].astype(np.float32) for sample in (results, other))
        blend = self.weight * first + (1 - self.weight) * second
        results['img'] = np.rint(blend).astype(results['img'].dtype)
        masks = results['gt_seg_map'], other['gt_seg_map']
        # 255, which is not counted, gives way to what either sentence describes
        target = (masks[0] == 1) | (masks[1] == 1)
        results['gt_seg_map'] = np.where(target, np.uint8(1), np.maximum(*masks))
        results['expressions'] = [f'{results["expressions"][0]} {other["expressions"][0]}']
        if 'num_targets' in results and 'num_targets' in other:
            results['num_targets'] = [results['num_targets'][0] + other['num_targets'][0]]
        return True


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
        transforms: See :class:`MixSamples`.
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
        transforms: Sequence[dict],
        prob: float = 0.5,
        scale: Sequence[float] = (0.5, 1.5),
        other_category: bool = True,
        min_visible: float = 0.5,
    ) -> None:
        super().__init__(transforms, prob)
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
