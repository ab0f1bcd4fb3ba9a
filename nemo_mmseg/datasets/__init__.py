"""Data sets, samplers and transforms of referring segmentation."""

from .base import BaseReferringDataset
from .grefcoco import GRefCOCODataset
from .json_dataset import ReferringJSONDataset
from .parquet_refcoco import ParquetRefCOCODataset
from .refcoco import RefCOCODataset
from .refcoco_m import RefCOCOMDataset
from .referit import ReferItDataset
from .refzom import RefZOMDataset
from .rrefcoco import RRefCOCODataset
from .samplers import InfiniteReferringSampler, ReferringSampler, SampleIndex
from .transforms import *  # noqa: F403
from .transforms import __all__ as _transforms

__all__ = [
    'BaseReferringDataset',
    'GRefCOCODataset',
    'InfiniteReferringSampler',
    'ParquetRefCOCODataset',
    'RRefCOCODataset',
    'RefCOCODataset',
    'RefCOCOMDataset',
    'RefZOMDataset',
    'ReferItDataset',
    'ReferringJSONDataset',
    'ReferringSampler',
    'SampleIndex',
    *_transforms,
]
