"""What one can score on a split without reading its expressions."""

from __future__ import annotations

import os
import pickle

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from nemo_mmseg.apis.inference import init_model
from nemo_mmseg.apis.inputs import build_pipeline, make_item
from nemo_mmseg.datasets import BaseReferringDataset
from nemo_mmseg.datasets.refer import load_references
from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.pseudo_labels.score import Guess, score
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


def centre_guess(dataset: BaseReferringDataset) -> dict[str, float]:
    """Score a box in the middle of each image, of the best size, and the middle as a point.

    Args:
        dataset: A split, without transforms.

    Returns:
        ``oIoU``, ``mIoU``, ``Pr@0.5`` and ``PointM``, each of the size that is best at it; per
        cent.
    """

    def box_of(share: float) -> Guess:
        def guess(item: dict, place: int) -> tuple[np.ndarray, tuple[int, int]]:
            height, width = item['height'], item['width']
            mask = np.zeros((height, width), bool)
            top, left = (round(length * (1 - share) / 2) for length in (height, width))
            mask[top : height - top, left : width - left] = True
            return mask, (height // 2, width // 2)

        return guess

    found = [score(dataset, box_of(share)) for share in (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)]
    return {name: max(one[name] for one in found) for name in found[0]}


def empty_sentence_guess(
    dataset: BaseReferringDataset, cfg: Config, checkpoint: str | os.PathLike
) -> dict[str, float]:
    """Score the largest part of a network's response to an empty sentence, for all expressions.

    Args:
        dataset: A split, without transforms.
        cfg: Config of the network, e.g. the first stage of TRIS.
        checkpoint: Its weights.

    Returns:
        See :func:`centre_guess`.
    """
    model, pipeline = init_model(cfg, checkpoint), build_pipeline(cfg)
    known: dict[int, tuple] = {}

    def guess(item: dict, place: int) -> tuple[np.ndarray, tuple[int, int]]:
        if item['img_id'] not in known:
            packed = pipeline(make_item(item['img_path'], ['']))
            with torch.no_grad():
                (sample,) = model.test_step(pseudo_collate([packed]))
            mask, response = sample.pred_sem_seg.data[0], sample.seg_logits.data[0].numpy()
            _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.numpy().astype(np.uint8))
            areas = stats[1:, cv2.CC_STAT_AREA]
            largest = labels == 1 + areas.argmax() if len(areas) else labels > 0
            point = np.unravel_index(response.argmax(), response.shape)
            known[item['img_id']] = largest, tuple(map(int, point))
        return known[item['img_id']]

    return score(dataset, guess)
