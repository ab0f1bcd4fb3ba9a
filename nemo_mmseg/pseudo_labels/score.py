"""How well response maps and pseudo masks fit the annotated masks of their own split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nemo_mmseg.datasets import BaseReferringDataset
from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.datasets.transforms.loading import referent_masks
from nemo_mmseg.utils.fileio import load_json

from .response_maps import ResponseMaps

# Returns, for an item and the place of an expression in it, a mask (H, W) and perhaps a point.
Guess = Callable[[dict, int], tuple[np.ndarray, tuple[int, int] | None]]


def score_response_maps(
    dataset: BaseReferringDataset, maps: ResponseMaps, threshold: float = 0.0
) -> dict[str, float]:
    """Score the response maps of a split as masks.

    Args:
        dataset: The split, with annotated masks, without transforms.
        maps: Its response maps. A reference without one has an empty mask.
        threshold: What is above it, 0..1, is foreground. Defaults to 0, as published.

    Returns:
        ``oIoU``, ``mIoU``, ``Pr@0.5`` and ``PointM`` over all expressions, in per cent.
    """

    def guess(item: dict, place: int) -> tuple[np.ndarray, tuple[int, int] | None]:
        shape, ref_id = (item['height'], item['width']), item['ref_ids'][place]
        if ref_id not in maps:
            return np.zeros(shape, bool), None
        response = maps.response(ref_id, shape)
        point = np.unravel_index(response.argmax(), shape)
        return response > threshold, tuple(map(int, point))

    return score(dataset, guess)


def score_pseudo_masks(dataset: BaseReferringDataset, ann_file: str) -> dict[str, float]:
    """Score the masks of an annotation file against those of the data set.

    Args:
        dataset: See :func:`score_response_maps`.
        ann_file: Pseudo masks of the same annotations. One that is missing is an empty mask.

    Returns:
        ``oIoU``, ``mIoU`` and ``Pr@0.5`` over all expressions, in per cent.
    """
    segmentations = {one['id']: one['segmentation'] for one in load_json(ann_file)['annotations']}

    def guess(item: dict, place: int) -> tuple[np.ndarray, None]:
        shape = item['height'], item['width']
        (target,) = item['targets'][place]
        segmentation = segmentations.get(item['instances'][target]['ann_id'])
        if segmentation is None:
            return np.zeros(shape, bool), None
        return decode_segmentation(segmentation, *shape) > 0, None

    return score(dataset, guess)


def score(dataset: BaseReferringDataset, guess: Guess) -> dict[str, float]:
    """Score what is guessed for each expression of a split.

    Args:
        dataset: See :func:`score_response_maps`.
        guess: Called with an item of the data set and the place of an expression in it. References
            of one item are asked once.

    Returns:
        ``oIoU``, ``mIoU``, ``Pr@0.5``, and ``PointM`` where there are points; in per cent.
    """
    counts, hits = [], []
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        guessed: dict[int, tuple] = {}
        for place, gt_mask in enumerate(referent_masks(item) > 0):
            ref_id = item['ref_ids'][place]
            if ref_id not in guessed:
                guessed[ref_id] = guess(item, place)
            mask, point = guessed[ref_id]
            counts.append([(mask & gt_mask).sum(), (mask | gt_mask).sum()])
            if point is not None:
                hits.append(gt_mask[point])
    intersection, union = np.array(counts, float).T
    ious = intersection / union
    scores = dict(
        oIoU=intersection.sum() / union.sum(), mIoU=ious.mean(), **{'Pr@0.5': (ious >= 0.5).mean()}
    )
    if hits:
        scores['PointM'] = sum(hits) / len(counts)
    return {name: float(100 * value) for name, value in scores.items()}
