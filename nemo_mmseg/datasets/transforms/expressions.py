"""Draw some of an item's expressions, and negative ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
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


@TRANSFORMS.register_module()
class SampleNegativeExpressions(BaseTransform):
    """Draw for each expression of an item others that do not describe its referent.

    They describe other references of the same image: for each negative a reference is drawn, then
    one of its expressions. Where the image shows no other, they are drawn from the whole data set,
    each of another item. What is equal to the expression is no negative, nor is what describes one
    of its targets by another reference. Without ``SampleExpressions`` before it, the negatives of
    all expressions are drawn.

    Required Keys:

    - expressions, ref_ids, targets, instances, siblings, items

    Added Keys:

    - negative_expressions (for each expression a list of ``num``); to reach a loss, they must be
      among the ``extra_keys`` of ``PackReferringInputs``

    Args:
        num: Negatives for each expression, at least 1. Defaults to 3.
    """

    def __init__(self, num: int = 3) -> None:
        if num < 1:
            raise ValueError(f'SampleNegativeExpressions: num={num} must be at least 1')
        self.num = num

    def transform(self, results: dict) -> dict:
        """Draw the negatives."""
        rng = generator_of(results)
        around = [results['items'][index] for index in results['siblings']]
        results['negative_expressions'] = [
            self._of_image(around, positive, rng) or self._of_dataset(results, positive, rng)
            for positive in described(results)
        ]
        return results

    def _of_image(
        self, around: list[dict], positive: Described, rng: np.random.Generator
    ) -> list[str]:
        """Draw with replacement; nothing if there is no other reference."""
        by_reference: dict[int, list[str]] = {}
        for item in around:
            for other in negatives_in(item, positive):
                by_reference.setdefault(other.ref_id, []).append(other.expression)
        references = list(by_reference.values())
        if not references:
            return []
        drawn = [references[rng.integers(len(references))] for _ in range(self.num)]
        return [said[rng.integers(len(said))] for said in drawn]

    def _of_dataset(
        self, results: dict, positive: Described, rng: np.random.Generator
    ) -> list[str]:
        """Draw from different items; from the same again if they are fewer than needed."""
        found = []
        for index in rng.permutation(len(results['items'])):
            of_item = negatives_in(results['items'][index], positive)
            if of_item:
                found.append(of_item[rng.integers(len(of_item))].expression)
            if len(found) == self.num:
                return found
        if not found:
            raise ValueError(
                f'{results["img_path"]}: no negative for {positive.expression!r} (ref_id '
                f'{positive.ref_id}): neither the image nor the data set has another reference '
                'with another expression'
            )
        return [found[i % len(found)] for i in range(self.num)]

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num={self.num})'


class Described(NamedTuple):
    """An expression and what it describes.

    Attributes:
        expression: The text.
        ref_id: Its reference.
        ann_ids: Annotations of its targets; references can share some.
    """

    expression: str
    ref_id: int
    ann_ids: set[int]


def described(item: dict) -> list[Described]:
    """List the expressions of an item, as a data set holds it."""
    ann_ids = [{item['instances'][row]['ann_id'] for row in rows} for rows in item['targets']]
    return [*map(Described, item['expressions'], item['ref_ids'], ann_ids)]


def negatives_in(item: dict, positive: Described) -> list[Described]:
    """List the expressions of an item that describe no target of another expression."""
    text = positive.expression.strip().lower()
    return [
        other
        for other in described(item)
        if other.ref_id != positive.ref_id
        and not other.ann_ids & positive.ann_ids
        and other.expression.strip().lower() != text
    ]


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
