"""Reviewed or cleaned labels of RefCOCO: masks of RefCOCO-M, and reviewed expressions.

Both are added to the items of a data set, which keep all their expressions and masks, so that one
run gives the scores on all, on reviewed and on cleaned ground truth (:class:`CleanReferringIoU`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from nemo_mmseg.utils.faults import fault
from nemo_mmseg.utils.fileio import load_json

from .refcoco_m import MaskedSample, checked_mask, read_samples


def add_clean_labels(items: Sequence[dict], overlay: str | None, reviewed: str | None) -> None:
    """Add ``clean_masks`` and ``reviewed`` to items, lists with one entry per expression.

    Args:
        items: Items of :class:`BaseReferringDataset`, of one target per expression; changed.
        overlay: RefCOCO-M, see :func:`shards_by_split`. The clean mask of an expression is an RLE,
            or None where RefCOCO-M has none. None adds no ``clean_masks``.
        reviewed: File of :func:`load_reviewed`. The entry of an expression is True or False, or
            None where it was not reviewed. None adds no ``reviewed``.

    Raises:
        DataError: A mask has not the size of its image, or a file holds what it must not.
        ValueError: Nothing of the overlay fits the items.
    """
    if overlay:
        masks = match_masks(items, read_samples(overlay), overlay)
        for item in items:
            item['clean_masks'] = [masks.get(sent_id) for sent_id in item['sent_ids']]
    if reviewed:
        verdicts = load_reviewed(reviewed)
        known = {sent_id for item in items for sent_id in item['sent_ids']}
        if not known & set(verdicts):
            allowed = f'sentence ids of the data set; none of its {len(verdicts)} is one'
            raise fault(reviewed, 'the keys', sorted(verdicts)[:3], allowed)
        for item in items:
            item['reviewed'] = [verdicts.get(sent_id) for sent_id in item['sent_ids']]


def load_reviewed(file: str) -> dict[int, bool]:
    """Read which expressions a reviewer found right.

    Args:
        file: JSON, a dict of sentence id (a text of digits) -> true or false.

    Returns:
        Whether the expression is right, by sentence id.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON.
        DataError: It holds what it must not; names file and key.
    """
    content = load_json(file)
    if type(content) is not dict or not content:
        raise fault(file, 'the file', content, 'a dict, sentence id -> true or false')
    for key, value in content.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 19 and str(int(key)) == key):
            raise fault(file, 'a key', key, 'a sentence id, a whole number of at least 0')
        if type(value) is not bool:
            raise fault(f'{file}: sentence {key}', 'the value', value, 'true or false')
    return {int(key): value for key, value in content.items()}


def match_masks(
    items: Sequence[dict], samples: Sequence[MaskedSample], source: str
) -> dict[int, dict]:
    """Find the clean mask of each expression.

    RefCOCO-M names images by COCO's id, but neither references nor sentences. A sample belongs to
    the reference of its image with which it shares most expressions (without regard to case and
    punctuation); of several such, to the one whose box overlaps most.

    Args:
        items: The items.
        samples: The objects of RefCOCO-M.
        source: Where they come from, for messages.

    Returns:
        RLEs by sentence id.

    Raises:
        DataError: A mask has not the size of its image, or is wrong.
        ValueError: No sample fits.
    """
    of_image = _candidates(items)
    masks, unmatched = {}, []
    for image_id, group in _grouped(samples).items():
        pairs = _best_pairs(group, of_image.get(image_id, []))
        for sample, candidate in pairs:
            rle = checked_mask(sample, *candidate.size)
            for text in map(_plain, sample.sentences):
                masks.update(dict.fromkeys(candidate.sent_ids.get(text, ()), rle))
        matched = {sample.id for sample, _ in pairs}
        unmatched += [sample for sample in group if sample.id not in matched]
    if len(unmatched) == len(samples):
        raise ValueError(
            f'{source}: none of its {len(samples)} masks belongs to an expression of the data set: '
            'it is for the val of RefCOCO (unc)'
        )
    if unmatched:
        first = f'{unmatched[0].entry}, {list(unmatched[0].sentences)}'
        warnings.warn(
            f'{len(unmatched)} of {len(samples)} masks of {source} belong to no expression of the '
            f'data set, the first: {first}'
        )
    return masks


@dataclass
class _Candidate:
    """A reference: height and width of its image, its box, and its sentence ids by plain text."""

    size: tuple[int, int]
    box: list[float] | None
    sent_ids: dict[str, list[int]] = field(default_factory=dict)


def _candidates(items: Sequence[dict]) -> dict[int, list[_Candidate]]:
    """Return the references by image, without expressions that have no target, or several."""
    found: dict[int, dict[int, _Candidate]] = {}
    for item in items:
        rows = zip(item['ref_ids'], item['sent_ids'], item['expressions'], item['targets'])
        for ref_id, sent_id, expression, targets in rows:
            if len(targets) == 1:
                box = item['instances'][targets[0]]['bbox']
                blank = _Candidate((item['height'], item['width']), box)
                candidate = found.setdefault(item['img_id'], {}).setdefault(ref_id, blank)
                candidate.sent_ids.setdefault(_plain(expression), []).append(sent_id)
    return {image_id: list(references.values()) for image_id, references in found.items()}


def _plain(text: str) -> str:
    return ' '.join(re.findall(r'\w+', text.casefold()))


def _grouped(samples: Sequence[MaskedSample]) -> dict[int, list[MaskedSample]]:
    groups: dict[int, list[MaskedSample]] = {}
    for sample in samples:
        groups.setdefault(sample.image_id, []).append(sample)
    return groups


def _best_pairs(
    samples: Sequence[MaskedSample], candidates: Sequence[_Candidate]
) -> list[tuple[MaskedSample, _Candidate]]:
    """Pair samples and references of an image, the best pair first, each of them once."""
    ranked = []
    for row, sample in enumerate(samples):
        texts = set(map(_plain, sample.sentences))
        for column, candidate in enumerate(candidates):
            if shared := len(texts & set(candidate.sent_ids)):
                ranked.append((-shared, -_overlap(sample.bbox, candidate.box), row, column))
    pairs, used = [], (set(), set())
    for _, _, row, column in sorted(ranked):
        if row not in used[0] and column not in used[1]:
            used[0].add(row)
            used[1].add(column)
            pairs.append((samples[row], candidates[column]))
    return pairs


def _overlap(one: Sequence[float] | None, other: Sequence[float] | None) -> float:
    """IoU of two boxes x, y, width, height; 0 where one is not known."""
    if one is None or other is None:
        return 0.0
    sides = [
        min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (0, 1)
    ]
    common = max(sides[0], 0) * max(sides[1], 0)
    joint = one[2] * one[3] + other[2] * other[3] - common
    return common / joint if joint > 0 else 0.0
