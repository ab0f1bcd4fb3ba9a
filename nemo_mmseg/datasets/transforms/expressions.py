"""Draw some of an item's expressions, and negative ones."""

from __future__ import annotations

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

    They describe other references of the same image: for each negative an object is drawn, then one
    of its expressions. Where the image shows no other, they are drawn from the whole data set, each
    of another item. What is equal to the expression is no negative. Without ``SampleExpressions``
    before it, the negatives of all expressions are drawn.

    Required Keys:

    - expressions, ref_ids, siblings, items

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
            self._of_image(around, expression, ref_id, rng)
            or self._of_dataset(results, expression, ref_id, rng)
            for expression, ref_id in zip(results['expressions'], results['ref_ids'])
        ]
        return results

    def _of_image(
        self, around: list[dict], expression: str, ref_id: int, rng: np.random.Generator
    ) -> list[str]:
        """Draw with replacement; nothing if there is no other reference."""
        by_reference: dict[int, list[str]] = {}
        for item in around:
            for other, said in others(item, expression, ref_id):
                by_reference.setdefault(other, []).append(said)
        references = list(by_reference.values())
        if not references:
            return []
        drawn = [references[rng.integers(len(references))] for _ in range(self.num)]
        return [said[rng.integers(len(said))] for said in drawn]

    def _of_dataset(
        self, results: dict, expression: str, ref_id: int, rng: np.random.Generator
    ) -> list[str]:
        """Draw from different items; from the same again if they are fewer than needed."""
        found = []
        for index in rng.permutation(len(results['items'])):
            said = [text for _, text in others(results['items'][index], expression, ref_id)]
            if said:
                found.append(said[rng.integers(len(said))])
            if len(found) == self.num:
                return found
        if not found:
            raise ValueError(
                f'{results["img_path"]}: no negative for {expression!r} (ref_id {ref_id}): neither '
                'the image nor the data set has another reference with another expression'
            )
        return [found[i % len(found)] for i in range(self.num)]

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num={self.num})'


def others(item: dict, expression: str, ref_id: int) -> list[tuple[int, str]]:
    """List reference and text of the expressions of an item that are not of one reference.

    Args:
        item: As a data set holds it.
        expression: What is equal to it is left out.
        ref_id: The reference.
    """
    return [
        (other, said)
        for other, said in zip(item['ref_ids'], item['expressions'])
        if other != ref_id and said.strip().lower() != expression.strip().lower()
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
