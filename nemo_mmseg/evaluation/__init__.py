"""Metrics of referring image segmentation."""

from .dump_referring_results import DumpReferringResults, write_results_to
from .expression_scores import ExpressionScores
from .iou import intersection_and_union, iou_values, summarize
from .referring_iou import ReferringIoU

__all__ = [
    'DumpReferringResults',
    'ExpressionScores',
    'ReferringIoU',
    'intersection_and_union',
    'iou_values',
    'summarize',
    'write_results_to',
]
