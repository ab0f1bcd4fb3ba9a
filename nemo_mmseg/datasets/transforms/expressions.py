"""Draw some of an item's expressions, and negative ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.base import PER_EXPRESSION
from nemo_mmseg.datasets.requirements import NeedsFiles, Requirement
from nemo_mmseg.datasets.samplers import generator_of
from nemo_mmseg.utils.annotation_schema import TEXT
from nemo_mmseg.utils.faults import fault
from nemo_mmseg.utils.fileio import load_json

if TYPE_CHECKING:
    from nemo_mmseg.datasets.base import BaseReferringDataset


@TRANSFORMS.register_module()
class SampleExpressions(BaseTransform, NeedsFiles):
    """Keep ``num`` expressions of an item, drawn without replacement, in their order.

    With ``paraphrases`` each of them is said as the data set says it or in one of its other ways,
    each as likely. Its sentence id stays, and so do the negatives that a bank has for it.

    Required Keys:

    - expressions
    - sent_ids (with ``paraphrases``)

    Modified Keys (lists with one entry per expression):

    - expressions, sent_ids, ref_ids, targets, num_targets, num_distractors
    - clean_masks, reviewed (of items with clean labels)

    Added Keys:

    - paraphrases (with ``paraphrases``): all texts of the file by sentence id

    Args:
        num: How many to keep, at least 1. An item with fewer keeps all. Defaults to 1.
        paraphrases: JSON file, sentence id -> list of texts that say the same. It need not have all
            sentence ids of the data set. Defaults to None.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: ``num`` is below 1, or the file is damaged.
        DataError: The file holds what it must not, or (when the data set is built) a sentence id
            that the data set does not have; names file and key.
    """

    def __init__(self, num: int = 1, paraphrases: str | None = None) -> None:
        if num < 1:
            raise ValueError(f'SampleExpressions: num={num} must be at least 1')
        self.num = num
        self.file = paraphrases and os.path.expanduser(paraphrases)
        self.paraphrases = load_paraphrases(self.file) if self.file else {}

    def requirements(
        self, dataset: BaseReferringDataset, max_epochs: int | None = None
    ) -> list[Requirement]:
        """Compare the paraphrases with the data set; there is nothing to make."""
        # Of a part of a data set the others are not known.
        if self.file is None or dataset.indices is not None or dataset.leak_guard is not None:
            return []
        unknown = set(self.paraphrases) - set(dataset.expressions()[0].tolist())
        if unknown:
            what = (
                f'a sentence id of the data set (split {dataset.split!r}); {len(unknown)} are not'
            )
            raise fault(self.file, 'a key', str(min(unknown)), what)
        return []

    def transform(self, results: dict) -> dict:
        """Draw the expressions."""
        total = len(results['expressions'])
        kept = generator_of(results).permutation(total)[: self.num]
        for key in PER_EXPRESSION:
            if key in results:
                results[key] = [results[key][i] for i in sorted(kept)]
        if self.paraphrases:
            pairs = zip(results['expressions'], results['sent_ids'])
            results['expressions'] = [self._said(*pair, generator_of(results)) for pair in pairs]
            results['paraphrases'] = self.paraphrases
        return results

    def _said(self, expression: str, sent_id: int, rng: np.random.Generator) -> str:
        ways = [expression, *self.paraphrases.get(sent_id, ())]
        return ways[rng.integers(len(ways))]

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num={self.num}, paraphrases={self.file!r})'


def load_paraphrases(file: str) -> dict[int, list[str]]:
    """Read a JSON file of paraphrases.

    Args:
        file: Sentence ids, as texts of digits, each with a list of texts that are not blank.

    Returns:
        Texts by sentence id.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON.
        DataError: It holds what it must not; names file and key.
    """
    content = load_json(file)
    if type(content) is not dict:
        raise fault(file, 'the file', content, 'a dict, sentence id -> list of texts')
    for key, texts in content.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 19 and str(int(key)) == key):
            raise fault(file, 'a key', key, 'a sentence id, a whole number of at least 0')
        if type(texts) is not list:
            raise fault(f'{file}: sentence {key}', 'the value', texts, 'a list of texts')
        for place, text in enumerate(texts):
            if not TEXT.holds(text):
                raise fault(f'{file}: sentence {key}', f'text {place}', text, TEXT.allowed)
    return {int(key): texts for key, texts in content.items()}


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
