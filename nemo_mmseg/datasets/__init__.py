"""Data sets, samplers and transforms of referring segmentation."""

from nemo_mmseg.negatives.leak_guard import LeakError, LeakGuard
from nemo_mmseg.negatives.pool import FolderPool, ImagePool

from .base import BaseReferringDataset
from .grefcoco import GRefCOCODataset
from .refcoco import RefCOCODataset
from .samplers import InfiniteReferringSampler, ReferringSampler, SampleIndex
from .transforms import *  # noqa: F403
from .transforms import __all__ as _transforms

__all__ = [
    'BaseReferringDataset',
    'FolderPool',
    'GRefCOCODataset',
    'ImagePool',
    'InfiniteReferringSampler',
    'LeakError',
    'LeakGuard',
    'RefCOCODataset',
    'ReferringSampler',
    'SampleIndex',
    *_transforms,
]
