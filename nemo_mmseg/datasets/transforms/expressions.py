"""Draw some of an item's expressions."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.base import PER_EXPRESSION
from nemo_mmseg.datasets.samplers import generator_of


@TRANSFORMS.register_module()
class SampleExpressions(BaseTransform):
    """Keep ``num`` expressions of an item, drawn without replacement, in their order.

    Required Keys:

    - expressions

    Modified Keys (lists with one entry per expression):

    - expressions, sent_ids, ref_ids, targets, num_targets, num_distractors

    Args:
        num: How many to keep, at least 1. An item with fewer keeps all. Defaults to 1.
    """

    def __init__(self, num: int = 1) -> None:
        if num < 1:
            raise ValueError(f'SampleExpressions: num={num} must be at least 1')
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


def single_expression(results: dict, transform: BaseTransform) -> str:
    """Return the expression of a sample that must have one.

    Raises:
        ValueError: It has another number; the message names the transform that needs one.
    """
    if len(results['expressions']) != 1:
        raise ValueError(
            f'{type(transform).__name__} needs one expression, not {len(results["expressions"])}: '
            'put SampleExpressions(num=1) before it'
        )
    return results['expressions'][0]
