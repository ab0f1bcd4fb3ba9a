"""What augmentations have in common that mix a sample with another one of the data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, Compose

from ..sample_index import generator_of
from .ramps import is_number
from .sample_expressions import SampleExpressions

TRIES = 20  # draws of another item before one that fits is given up


class MixSamples(BaseTransform, ABC):
    """Base of CutMix, MixGen and CopyPaste: with a probability, mixes two prepared samples.

    It stands where a pipeline reads and resizes its image, after ``SampleExpressions``, as
    ``NeMoMosaic`` does; both samples go through ``plain``. Other samples come from the same data
    set, and from another image: nothing is seen that is not trained on anyway. To keep images that
    another data set tests on out of all this, give the data set a ``leak_guard``. Where nothing can
    be mixed, the sample stays plain.

    Required Keys:

    - img_path, height, width, img_id, instances, targets, expressions (one)
    - rng, visit, pool, items (the data sets of this package give them)
    - whatever ``plain`` needs

    Added Keys:

    - img ((H, W, 3) uint8), gt_seg_map ((H, W) uint8, 1 on the referent), and what ``plain`` adds
    - mixed, where it is: dict of kind (the name of the transform) and img_path (of the other image)

    Modified Keys (where they are there, and the sample is mixed):

    - num_targets: 0 where nothing of the referents is visible any more
    - num_distractors: -1, unknown; what is like the referent may have come in or gone

    Args:
        plain: Transforms that read an image and its mask and bring them to the input's size.
        prob: Chance that a sample is mixed. Defaults to 0.5, NeMo's chance of a mosaic, so that a
            comparison is one of kinds and not of amounts.

    Raises:
        ValueError: ``prob`` is no number in [0, 1].
    """

    def __init__(self, plain: Sequence[dict], prob: float = 0.5) -> None:
        self.check_share('prob', prob)
        self.plain = Compose(list(plain))
        self.prob = prob

    def check_share(self, name: str, value: Any) -> None:
        """Refuse an argument that is no number in [0, 1]."""
        if not is_number(value) or not 0 <= value <= 1:
            raise ValueError(f'{type(self).__name__}: {name}={value!r} is no number in [0, 1]')

    @abstractmethod
    def mix(self, results: dict, other: dict, rng: np.random.Generator) -> bool:
        """Change image, mask and expression of a sample in place, or leave them.

        Args:
            results: The sample, after ``plain``.
            other: Another one, after ``plain``, of the same size.
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
            return self.plain(results)
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
            return self.plain(results)
        results, other = self.plain(results), self.plain(other)
        if results['img'].shape != other['img'].shape:
            raise ValueError(
                f'{name}: `plain` must bring all images to one size, but {results["img_path"]} has '
                f'{results["img"].shape} and {other["img_path"]} {other["img"].shape}'
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
            shared = {key: results[key] for key in ('rng', 'visit', 'pool', 'items')}
            other.update(shared, seg_fields=[], reduce_zero_label=False)
            other = SampleExpressions(num=1)(other)
            if self.fits(results, other):
                return other
        return None

    def __repr__(self) -> str:
        settings = [f'{key}={value!r}' for key, value in vars(self).items() if key != 'plain']
        return f'{type(self).__name__}({", ".join([*settings, f"plain={self.plain!r}"])})'


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
