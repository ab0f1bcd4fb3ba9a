"""Metrics of referring image segmentation."""

from .difficulty import DIFFICULTIES, Slices, slice_by
from .dump_referring_results import DumpReferringResults, write_results_to
from .expression_scores import ExpressionScores
from .generalized_counts import GeneralizedCounts, NoTargetRule
from .generalized_referring_iou import GeneralizedReferringIoU
from .iou import intersection_and_union, iou_values, summarize
from .paired_bootstrap import PairedDifference, paired_bootstrap
from .referring_iou import ReferringIoU
from .run_comparison import ComparisonRow, RunComparison, compare_runs

__all__ = [
    'ComparisonRow',
    'DIFFICULTIES',
    'DumpReferringResults',
    'ExpressionScores',
    'GeneralizedCounts',
    'GeneralizedReferringIoU',
    'NoTargetRule',
    'PairedDifference',
    'ReferringIoU',
    'RunComparison',
    'Slices',
    'compare_runs',
    'intersection_and_union',
    'iou_values',
    'paired_bootstrap',
    'slice_by',
    'summarize',
    'write_results_to',
]
