"""Metrics of referring image segmentation."""

from .bootstrap import PairedDifference, paired_bootstrap
from .compare import ComparisonRow, RunComparison, compare_runs
from .difficulty import DIFFICULTIES, Slices, slice_by
from .dump_results import DumpReferringResults, write_results_to
from .generalized_counts import GeneralizedCounts, NoTargetRule
from .generalized_iou import GeneralizedReferringIoU
from .iou import intersection_and_union, iou_values, summarize
from .referring_iou import ReferringIoU
from .scores import ExpressionScores

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
