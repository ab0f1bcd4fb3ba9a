"""Referring image segmentation and NeMo augmentation for MMSegmentation.

Importing this package registers all its classes in ``mmseg.registry``. A config does it with
``custom_imports = dict(imports=['nemo_mmseg'], allow_failed_imports=False)``.
"""

from . import compat
from .version import __version__

compat.apply()  # before anything below imports mmseg, so that its absence is explained

from . import (  # noqa: E402
    apis,
    datasets,
    engine,
    evaluation,
    mining,
    models,
    negatives,
    pseudo_labels,
    visualization,
)

__all__ = [
    '__version__',
    'apis',
    'datasets',
    'engine',
    'evaluation',
    'mining',
    'models',
    'negatives',
    'pseudo_labels',
    'visualization',
]
