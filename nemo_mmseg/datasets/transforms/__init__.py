"""Transforms of referring samples."""

from .expressions import SampleExpressions, SampleNegativeExpressions
from .formatting import PackReferringInputs
from .geometry import Letterbox, ReferringFlip
from .loading import LoadReferentBoxes, LoadReferentMask, LoadReferringImage
from .mixing import CopyPaste, CutMix, MixGen
from .negative_expressions import ReplaceByNegativeExpression
from .nemo import NeMoMosaic

__all__ = [
    'CopyPaste',
    'CutMix',
    'Letterbox',
    'LoadReferentBoxes',
    'LoadReferentMask',
    'LoadReferringImage',
    'MixGen',
    'NeMoMosaic',
    'PackReferringInputs',
    'ReferringFlip',
    'ReplaceByNegativeExpression',
    'SampleExpressions',
    'SampleNegativeExpressions',
]
