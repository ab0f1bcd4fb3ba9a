"""CutMix for referring segmentation: a rectangle of another image covers a part of this one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmseg.registry import TRANSFORMS

from .mix_samples import TRIES, MixSamples, hide
from .ramps import is_number


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
        plain: See :class:`MixSamples`.
        prob: See :class:`MixSamples`. Defaults to 0.5.
        alpha: Of the Beta distribution. Defaults to 1 (uniform), as published.
        min_visible: Share of the referent that stays visible. Defaults to 0.5.

    Raises:
        ValueError: ``alpha`` is no positive number, or a share is none in [0, 1].
    """

    def __init__(
        self,
        plain: Sequence[dict],
        prob: float = 0.5,
        alpha: float = 1.0,
        min_visible: float = 0.5,
    ) -> None:
        super().__init__(plain, prob)
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
