"""Data sets, samplers and transforms of referring segmentation."""

from .grefcoco import GRefCOCODataset
from .leak_guard import LeakError, LeakGuard
from .pool import FolderPool, ImagePool
from .refcoco import RefCOCODataset
from .referring import BaseReferringDataset
from .sample_index import SampleIndex
from .samplers import InfiniteReferringSampler, ReferringSampler
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
