"""The metric of networks that learn without masks: where the response is largest, and boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from mmseg.registry import METRICS
from torch import Tensor

from .boxes import box_iou, holds, plain_box, published_boxes
from .iou import image_name, masks_of
from .referring_iou import ReferringIoU
from .scores import ExpressionScores

MEASURES = ('PointIt', 'PointM', 'Acc_box', 'box_mIoU', 'Acc_box_plain')
# A box counts if its IoU is larger.
LEAST_IOU = 0.5


def first_maximum(maps: Tensor) -> np.ndarray:
    """Return row and column ``(N, 2)`` of the maximum of each map ``(N, H, W)``.

    Of equal ones it is the first, row by row: PyTorch's ``argmax`` promises none.
    """
    flat = maps.flatten(1)
    place = torch.arange(flat.shape[1], device=flat.device)
    at_maximum = flat == flat.amax(1, keepdim=True)
    first = place.masked_fill(~at_maximum, flat.shape[1]).amin(1).cpu().numpy()
    return np.stack(np.divmod(first, maps.shape[-1]), axis=1)


@METRICS.register_module()
class ReferringLocalization(ReferringIoU):
    """Pointing and box accuracy beside oIoU, mIoU and Pr@X, in per cent.

    As in TRIS (Liu et al., *Referring Image Segmentation Using Text Supervision*, ICCV 2023). The
    *point* of an expression is the first maximum of its response, ``seg_logits``.

    ===================  ======================================================================
    measure              share of the expressions
    ===================  ======================================================================
    ``PointIt``          whose point lies in a box of the ground truth, borders included
    ``PointM``           whose point lies in the mask of the ground truth
    ``Acc_box``          of whose boxes one has an IoU above 0.5 with the ground truth's first;
                         boxes are made as published (:func:`published_boxes`)
    ``box_mIoU``         no share, but the mean IoU of the published box that holds the point
                         (the last such; the first box if none does) with the ground truth's
                         first
    ``Acc_box_plain``    the box around the part of the mask that holds the point
                         (:func:`plain_box`) has an IoU above 0.5 with one of the ground truth's
    ===================  ======================================================================

    ``Acc_box`` is for comparisons with published numbers. Its boxes have faults: a mask of the
    whole image has none, specks throw out large boxes, and any of several boxes may hit.
    ``Acc_box_plain`` is the right measure, on one box an expression.

    The test pipeline needs ``LoadReferentBoxes`` and ``LoadReferentMask``, and the protocol must
    predict at the original size. The arguments are those of :class:`ReferringIoU`; slices by
    difficulty have these measures, too.
    """

    def _score(self, sample: dict, counts: np.ndarray) -> ExpressionScores:
        found = localize(sample) if len(counts) else np.zeros((0, len(MEASURES)))
        scores = super()._score(sample, counts)
        return replace(scores, measures=dict(zip(MEASURES, found.T)))


def localize(sample: dict) -> np.ndarray:
    """Measure the N expressions of a data sample.

    Args:
        sample: Data sample as a dict, with ``seg_logits``, ``pred_sem_seg``, ``gt_sem_seg`` and
            ``gt_bboxes``, a list of boxes ``(n, 4)``, x1, y1, x2, y2, for each expression.

    Returns:
        ``(N, 5)`` float64 in 0..1, in the order of ``MEASURES``.

    Raises:
        KeyError: The sample has no boxes, or no responses.
        ValueError: The prediction has not the size of the image.
    """
    masks = masks_of(sample, 'pred_sem_seg') > 0
    if sample.get('gt_bboxes') is None:
        raise KeyError(f'{image_name(sample)}: the test pipeline needs LoadReferentBoxes')
    shape = tuple(sample.get('ori_shape', masks.shape[1:])[:2])
    if tuple(masks.shape[1:]) != shape:
        raise ValueError(
            f'{image_name(sample)}: boxes are compared at the size of the image, {shape}, but the '
            f'protocol predicts at {tuple(masks.shape[1:])}'
        )
    points = first_maximum(masks_of(sample, 'seg_logits'))
    gt = (masks_of(sample, 'gt_sem_seg') == 1).cpu().numpy()
    rows = zip(masks.cpu().numpy(), gt, points.tolist(), sample['gt_bboxes'], strict=True)
    return np.array([_measure(mask, gt, tuple(point), boxes) for mask, gt, point, boxes in rows])


def _measure(
    mask: np.ndarray, gt: np.ndarray, point: tuple[int, int], gt_boxes: np.ndarray
) -> list[float]:
    """The measures of one expression."""
    gt_boxes = np.asarray(gt_boxes, dtype=np.float64).reshape(-1, 4)
    boxes = published_boxes(mask)[:, :4]
    overlaps = box_iou(boxes, gt_boxes[:1])[:, 0]
    holding = np.flatnonzero(holds(boxes, point))
    plain = box_iou(plain_box(mask, point)[None], gt_boxes)
    return [
        float(holds(gt_boxes, point).any()),
        float(gt[point]),
        float((overlaps > LEAST_IOU).any()),
        float(overlaps[holding[-1] if holding.size else 0]),
        float((plain > LEAST_IOU).any()),
    ]
