"""RefShapes: drawn scenes with referring expressions, written to disk in RefCOCO's layout."""

from .sample import Sample, make_sample
from .vocabulary import CATEGORIES, DEFAULT_SIZES, DISTRACTORS, SPLITS, VARIANTS
from .write import make_refshapes

__all__ = [
    'CATEGORIES',
    'DEFAULT_SIZES',
    'DISTRACTORS',
    'SPLITS',
    'VARIANTS',
    'Sample',
    'make_refshapes',
    'make_sample',
]
