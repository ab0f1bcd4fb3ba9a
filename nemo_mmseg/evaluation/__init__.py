"""Metrics of referring image segmentation, and comparisons of runs."""

from .bootstrap import PairedDifference, paired_bootstrap
from .clean_iou import CleanReferringIoU
from .compare import ComparisonRow, RunComparison, compare_runs, match_runs
from .difficulty import DIFFICULTIES, slice_by
from .dump_results import DumpReferringResults
from .generalized_iou import GeneralizedReferringIoU
from .iou import count_pixels, iou_values
from .localization import ReferringLocalization
from .ref_zom_iou import RefZOMIoU
from .referring_iou import ReferringIoU
from .robust_iou import RobustReferringIoU
from .scores import ExpressionScores, NoTargetRule

__all__ = [
    'CleanReferringIoU',
    'ComparisonRow',
    'DIFFICULTIES',
    'DumpReferringResults',
    'ExpressionScores',
    'GeneralizedReferringIoU',
    'NoTargetRule',
    'PairedDifference',
    'RefZOMIoU',
    'ReferringIoU',
    'ReferringLocalization',
    'RobustReferringIoU',
    'RunComparison',
    'compare_runs',
    'count_pixels',
    'iou_values',
    'match_runs',
    'paired_bootstrap',
    'slice_by',
]
