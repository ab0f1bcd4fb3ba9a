"""Draws some of an item's expressions."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.base import PER_EXPRESSION
from nemo_mmseg.datasets.samplers import generator_of


@TRANSFORMS.register_module()
class SampleExpressions(BaseTransform):
    """Keep ``num`` expressions of the item, drawn uniformly without replacement, in their order.

    Required and Modified Keys:

    - expressions, sent_ids, ref_ids, targets, num_targets, num_distractors (each one value an
      expression)

    Args:
        num: How many to keep; an item with fewer keeps them all. Defaults to 1.

    Raises:
        ValueError: ``num`` is below 1.
    """

    def __init__(self, num: int = 1) -> None:
        if num < 1:
            raise ValueError(f'SampleExpressions needs num >= 1, not {num}')
        self.num = num

    def transform(self, results: dict) -> dict:
        """Draw the expressions."""
        total = len(results['expressions'])
        kept = generator_of(results).permutation(total)[: self.num]
        for key in PER_EXPRESSION:
            if key in results:
                results[key] = [results[key][i] for i in sorted(kept)]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num={self.num})'
