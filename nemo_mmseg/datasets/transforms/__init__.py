"""Transforms of referring samples."""

from .letterbox import Letterbox
from .load_referent_mask import LoadReferentMask
from .load_referring_image import LoadReferringImage
from .nemo import NeMoMosaic
from .pack_referring_inputs import PackReferringInputs
from .referring_flip import ReferringFlip
from .sample_expressions import SampleExpressions

__all__ = [
    'Letterbox',
    'LoadReferentMask',
    'LoadReferringImage',
    'NeMoMosaic',
    'PackReferringInputs',
    'ReferringFlip',
    'SampleExpressions',
]
