"""What one can score on a split without reading its expressions."""

from __future__ import annotations

import pickle

import numpy as np

from nemo_mmseg.datasets.refer import load_references
from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.utils.atomic_write import write_bytes
from nemo_mmseg.utils.fileio import load_json, load_plain_pickle


def category_baseline(split_file: str, ann_file: str, split: str) -> dict[str, float]:
    """Score the best answer of one who knows every mask and the referent's category, no more.

    Three answers are tried: the union of the objects of the category, the largest of them, and one
    of them at random (its expected score). Each measure is that of the answer that is best at it.

    Args:
        split_file: ``refs(unc).p``.
        ann_file: ``instances.json``.
        split: Name of the split.

    Returns:
        ``oIoU`` and ``mIoU`` over all expressions, in per cent.
    """
    references = load_references(split_file, ann_file, split)
    of_image: dict[int, list[dict]] = {}
    for annotation in load_json(ann_file)['annotations']:
        of_image.setdefault(annotation['image_id'], []).append(annotation)
    # Per answer: intersection, union and IoU of each expression.
    scores: dict[str, list[tuple[float, float, float]]] = dict(union=[], largest=[], random=[])
    for reference in references:
        image, target = reference.image, reference.annotations[0]
        same = [a for a in of_image[image['id']] if a['category_id'] == target['category_id']]
        masks = np.stack(
            [decode_segmentation(a['segmentation'], image['height'], image['width']) for a in same]
        ).astype(bool)
        gt_mask = masks[[a['id'] for a in same].index(target['id'])]
        single = [_counts(mask, gt_mask) for mask in masks]
        answers = dict(
            union=_counts(masks.any(axis=0), gt_mask),
            largest=single[int(masks.sum(axis=(1, 2)).argmax())],
            random=tuple(np.mean(single, axis=0)),
        )
        for name, counts in answers.items():
            scores[name] += [counts] * len(reference.expressions)
    tables = [np.array(values) for values in scores.values()]
    return dict(
        oIoU=100 * max(float(t[:, 0].sum() / t[:, 1].sum()) for t in tables),
        mIoU=100 * max(float(t[:, 2].mean()) for t in tables),
    )


def _counts(prediction: np.ndarray, gt_mask: np.ndarray) -> tuple[float, float, float]:
    intersection = float((prediction & gt_mask).sum())
    union = float((prediction | gt_mask).sum())
    return intersection, union, intersection / union


def shuffle_expressions(
    split_file: str, out_file: str, split: str = 'train', seed: int = 0
) -> None:
    """Write references whose expressions, in one split, are dealt out to others at random.

    A network trained on them learns what referents look like, and nothing from language.

    Args:
        split_file: ``refs(unc).p`` to read.
        out_file: File to write; its folder is made.
        split: The split that is shuffled. Defaults to ``'train'``.
        seed: Of the permutation. Defaults to 0.
    """
    refs = load_plain_pickle(split_file)
    chosen = [ref for ref in refs if ref['split'] == split]
    order = np.random.default_rng(seed).permutation(len(chosen))
    sentences = [(chosen[i]['sentences'], chosen[i]['sent_ids']) for i in order]
    for ref, (expressions, sent_ids) in zip(chosen, sentences):
        ref['sentences'], ref['sent_ids'] = expressions, sent_ids
    write_bytes(out_file, pickle.dumps(refs, protocol=2))
