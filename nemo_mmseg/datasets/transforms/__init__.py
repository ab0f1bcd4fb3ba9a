"""Transforms of referring samples."""

from .copy_paste import CopyPaste
from .cut_mix import CutMix
from .letterbox import Letterbox
from .load_referent_mask import LoadReferentMask
from .load_referring_image import LoadReferringImage
from .mix_gen import MixGen
from .nemo import NeMoMosaic
from .pack_referring_inputs import PackReferringInputs
from .referring_flip import ReferringFlip
from .sample_expressions import SampleExpressions

__all__ = [
    'CopyPaste',
    'CutMix',
    'Letterbox',
    'LoadReferentMask',
    'LoadReferringImage',
    'MixGen',
    'NeMoMosaic',
    'PackReferringInputs',
    'ReferringFlip',
    'SampleExpressions',
]
