"""Replace the expression of a sample by one that is false of its image: then there is no target.

The random kind is DeRIS's *non-referent sample conversion* (Dai et al., *DeRIS: Decoupling
Perception and Cognition for Enhanced Referring Image Segmentation through Loopback Synergy*, ICCV
2025). The mined kind is NeMo's idea turned round: expressions that match the image, but not as well
as its own.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.requirements import BankRequirement, NeedsFiles, Requirement
from nemo_mmseg.datasets.samplers import generator_of
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankSpec
from nemo_mmseg.negatives.expression_bank import normalized, open_expression_bank

from .expressions import single_expression

if TYPE_CHECKING:
    from nemo_mmseg.datasets.base import BaseReferringDataset

TRIES = 50  # DeRIS's draws before it gives up


class FalseExpression(NamedTuple):
    """An expression that is to be false of an image.

    Attributes:
        kind: ``'random'`` or ``'mined'``.
        text: The expression.
        sent_id: Its sentence id.
        image_id: The image that it was said of.
        similarity: Of expression and image by the bank's CLIP; NaN for a random one.
    """

    kind: str
    text: str
    sent_id: int
    image_id: int
    similarity: float = math.nan


def string_similarity(one: str, other: str) -> float:
    """Compare two texts by their characters, as DeRIS does.

    It is the mean of Jaccard's index and the cosine (Ochiai's coefficient) of the characters with
    their multiplicity: shared ones by all, and by the geometric mean of both lengths.

    Args:
        one: A text that is not empty.
        other: Another one.

    Returns:
        0 for texts without a shared character, 1 for those of the same characters.
    """
    shared = (Counter(one) & Counter(other)).total()
    total = len(one) + len(other)
    return (shared / (total - shared) + shared / math.sqrt(len(one) * len(other))) / 2


def true_texts(results: dict) -> set[str]:
    """Collect what is known to be said of an item's image, without case and extra spaces.

    Args:
        results: The item, with ``items`` and perhaps ``paraphrases``.
    """
    said = results.get('paraphrases', {})
    found = {normalized(text) for text in results['expressions']}
    for index in (results['sample_idx'], *results['siblings']):
        item = results['items'][index]
        for text, sent_id in zip(item['expressions'], item['sent_ids']):
            found.update(map(normalized, (text, *said.get(sent_id, ()))))
    return found


@TRANSFORMS.register_module()
class ReplaceByNegativeExpression(BaseTransform, NeedsFiles):
    """Replace the expression by one that is false of the image, with a probability.

    The sample then has no target: its mask is empty. For networks and data sets with no-target
    answers (gRefCOCO). Samples without a target stay as they are.

    - *Random* (without ``bank``): an item of another image is drawn, then one of its expressions.
      As in DeRIS, one whose characters are too similar is drawn again, up to 50 times; then the
      sample stays as it is.
    - *Mined* (with ``bank``): an expression of another image from the *band*: the ``top_k`` that
      match the image best, among those less similar to it than ``tau`` allows. The words are those
      of :class:`NeMoMosaic`; the similarity to compare with is that of the replaced expression and
      the image. Where the band is empty, a random one is taken.

    What is said of the image itself, by the data set or by the paraphrases of
    ``SampleExpressions``, is never taken. Otherwise neither kind is certain to be false;
    ``docs/grefcoco.md`` has figures. The transform stands right behind
    ``SampleExpressions(num=1)``, before what loads the mask. ``NeMoMosaic`` comes after it: the
    sample has the sentence id of its new expression, so the mosaic gets the negatives of that one.
    Neither the sample's own image nor the one that the expression was said of is among them.

    Required Keys:

    - expressions, sent_ids, targets (one each)
    - img_path, img_id, siblings, sample_idx, items, pool, rng
    - paraphrases (optional)

    Modified Keys (if the expression was replaced):

    - expressions, sent_ids: those of the new expression; ref_ids stay, and tell what was replaced
    - targets ([]), num_targets (0), num_distractors (-1, unknown)

    Added Keys (if the expression was replaced):

    - replaced: dict of kind, expression (the old one) and similarity (of the new one to the image;
      NaN for a random one)
    - said_of: id of the image that the new expression was said of

    Args:
        prob: Probability for a sample with targets, in [0, 1]. Defaults to 0.15, as in DeRIS.
        bank: Where the mined expressions lie and how they are mined: ``path``, ``model``,
            ``pretrained`` and ``keep`` (default 1000, per image). Defaults to None: random ones.
        band: Which ones: ``tau`` (default 0.95), ``tau_mode`` (``'relative'``) and ``top_k`` (100);
            see :class:`~nemo_mmseg.negatives.BandRule`. Defaults to None, which is all defaults.
        max_similarity: Of a random expression to the replaced one, see :func:`string_similarity`.
            Defaults to 0.6, as in DeRIS.

    Raises:
        TypeError: An option of ``bank`` or ``band`` is unknown.
        ValueError: Options make no sense or contradict one another.
    """

    def __init__(
        self,
        prob: float = 0.15,
        bank: dict | None = None,
        band: dict | None = None,
        max_similarity: float = 0.6,
    ) -> None:
        name = type(self).__name__
        if not (0 <= prob <= 1 and 0 <= max_similarity <= 1):
            raise ValueError(f'{name}: {prob=} and {max_similarity=} must be in [0, 1]')
        if band is not None and bank is None:
            raise ValueError(f'{name}: a band needs bank=dict(path=..., model=..., ...)')
        self.prob = prob
        self.bank = None if bank is None else BankSpec(**bank, kind='expressions')
        self.band = BandRule(**(band or {}))
        self.max_similarity = max_similarity
        if self.band.i2i_sim_thres is not None:
            raise ValueError(
                f'{name}: i2i_sim_thres compares images; a band of expressions has tau'
            )
        if self.bank is not None:
            self.band.check(self.bank.keep, 1)

    def requirements(
        self, dataset: BaseReferringDataset, max_epochs: int | None = None
    ) -> list[Requirement]:
        """Return the bank that mined expressions are read from; see :class:`NeedsFiles`."""
        return [] if self.bank is None else [BankRequirement(dataset, self.bank, (self.band,), 1)]

    def transform(self, results: dict) -> dict:
        """Decide whether the expression is replaced, and replace it."""
        rng, expression = generator_of(results), single_expression(results, self)
        if 'gt_seg_map' in results:
            raise ValueError(
                f'{type(self).__name__} stands before what loads the mask, and before a mosaic: '
                'the new expression would be checked against one of its images only'
            )
        if rng.random() >= self.prob or not results['targets'][0]:
            return results
        new = None if self.bank is None else self.draw_mined(results, rng)
        new = new or self.draw_random(results, rng)
        if new is None:
            return results
        results.update(
            expressions=[new.text],
            sent_ids=[new.sent_id],
            targets=[[]],
            num_targets=[0],
            num_distractors=[-1],
            replaced=dict(kind=new.kind, expression=expression, similarity=new.similarity),
            said_of=new.image_id,
        )
        return results

    def draw_random(self, results: dict, rng: np.random.Generator) -> FalseExpression | None:
        """Draw an expression of another image; None where none differs enough.

        Args:
            results: The item, with one expression.
            rng: The sample's generator.
        """
        items, expression = results['items'], normalized(results['expressions'][0])
        true = true_texts(results)
        for _ in range(TRIES):
            other = items[rng.integers(len(items))]
            place = rng.integers(len(other['expressions']))
            text = other['expressions'][place]
            words = normalized(text)
            if other['img_id'] == results['img_id'] or words in true:
                continue
            if string_similarity(words, expression) < self.max_similarity:
                sent_id = other['sent_ids'][place]
                return FalseExpression('random', text, sent_id, other['img_id'])
        return None

    def draw_mined(self, results: dict, rng: np.random.Generator) -> FalseExpression | None:
        """Draw an expression from the band; None where it is empty.

        Args:
            results: The item, with one expression.
            rng: The sample's generator.
        """
        bank = open_expression_bank(self.bank.path, results['pool'].fingerprint)
        band = bank.band(results['sent_ids'][0], self.band, results['expressions'][0])
        texts, true = [bank.texts[row] for row in band.rows], true_texts(results)
        places = [i for i, text in enumerate(texts) if normalized(text) not in true]
        if not places:
            return None
        place = places[rng.integers(len(places))]
        row, similarity = int(band.rows[place]), float(band.similarities[place])
        image_id = int(results['pool'].ids[bank.image_of(row)])
        return FalseExpression(
            'mined', texts[place], int(bank.text_sent_ids[row]), image_id, similarity
        )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(prob={self.prob}, bank={self.bank}, band={self.band}, '
            f'max_similarity={self.max_similarity})'
        )
