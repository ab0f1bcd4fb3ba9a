"""Data sets, samplers and transforms of referring segmentation."""

from .base import BaseReferringDataset
from .grefcoco import GRefCOCODataset
from .json_dataset import ReferringJSONDataset
from .refcoco import RefCOCODataset
from .referit import ReferItDataset
from .samplers import InfiniteReferringSampler, ReferringSampler, SampleIndex
from .transforms import *  # noqa: F403
from .transforms import __all__ as _transforms

__all__ = [
    'BaseReferringDataset',
    'GRefCOCODataset',
    'InfiniteReferringSampler',
    'RefCOCODataset',
    'ReferItDataset',
    'ReferringJSONDataset',
    'ReferringSampler',
    'SampleIndex',
    *_transforms,
]
