"""MixGen for referring segmentation: two images become one, and two sentences one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmseg.registry import TRANSFORMS

from .mix_samples import MixSamples
from .ramps import is_number


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
        plain: See :class:`MixSamples`.
        prob: See :class:`MixSamples`. Defaults to 0.5.
        weight: lambda, share of the first image. Defaults to 0.5, as published.

    Raises:
        ValueError: ``weight`` is no number in (0, 1).
    """

    def __init__(self, plain: Sequence[dict], prob: float = 0.5, weight: float = 0.5) -> None:
        super().__init__(plain, prob)
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
