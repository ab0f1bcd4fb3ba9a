"""The metric of generalized referring segmentation: several targets, one, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.registry import METRICS

from .referring_iou import ReferringIoU
from .scores import NoTargetRule


@METRICS.register_module()
class GeneralizedReferringIoU(ReferringIoU):
    """gIoU, cIoU, N-acc, T-acc and Pr@X of expressions that may have no target.

    As published with ReLA (Liu et al., *GRES: Generalized Referring Expression Segmentation*, CVPR
    2023). Per expression, with I and U the common and joint pixels of prediction and ground truth:

    ============  ==========  =====  =================  ==============================
    ground truth  prediction  IoU    adds to sum of I   adds to sum of U
    ============  ==========  =====  =================  ==============================
    no target     no target   1      0                  0
    no target     a mask      0      0                  U (the predicted pixels)
    targets       no target   0      0                  U (whatever the mask is)
    targets       a mask      I / U  I                  U
    ============  ==========  =====  =================  ==============================

    gIoU is the mean IoU over all expressions and cIoU is sum I / sum U. Pr@X is the share of the
    expressions *with* targets whose IoU reaches X. These are in per cent. N-acc is the share of the
    no-target expressions that are predicted as such, T-acc the share of the others that are not.
    Both are in 0..1 as published, and 0 when no no-target expression was evaluated.

    An expression has no target where the data sample's ``num_targets`` is 0, or, without
    ``num_targets``, where its ground truth is empty. Several data sets that are evaluated together
    (``dataset_name`` of the data samples) get ``<dataset_name>/gIoU`` and so on.

    Args:
        thresholds: The X of Pr@X, each in 0..1. Defaults to 0.7, 0.8, 0.9.
        no_target: What predicts no target: ``'score'``, ``'area'`` (of networks without such a
            score) or ``'auto'``, see :class:`NoTargetRule`. Defaults to ``'auto'``.
        min_pixels: See :class:`NoTargetRule`. Defaults to 50, as published.
        score_threshold: See :class:`NoTargetRule`. Defaults to 0.
        **kwargs: ``ignore_index``, ``by``, ``csv_file``, ``collect_device``, ``prefix`` and
            ``collect_dir``, see :class:`ReferringIoU`.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        thresholds: Sequence[float] = (0.7, 0.8, 0.9),
        no_target: str = 'auto',
        min_pixels: int = 50,
        score_threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(thresholds, tie='>=', empty_union=1.0, **kwargs)
        self.rule = NoTargetRule(no_target, min_pixels, score_threshold)
