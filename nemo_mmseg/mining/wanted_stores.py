"""Which tile stores a training data set asks for."""

from __future__ import annotations

from typing import Any

from ..datasets.nested_transforms import transforms_in
from ..datasets.wanted_store import WantedStore
from .wanted import data_sets_of


def wanted_stores(dataset: Any) -> list[WantedStore]:
    """Find the tile stores that the mosaics of a data set read.

    Args:
        dataset: A data set, or wrappers around some, with pipelines in which mosaics may stand
            inside other transforms.

    Returns:
        One entry a file.

    Raises:
        ValueError: Mosaics ask for different stores in the same file.
    """
    stores: dict[str, WantedStore] = {}
    for inner, pipelines in data_sets_of(dataset):
        for transform in transforms_in(pipelines):
            for store in transform.stores(inner.pool) if hasattr(transform, 'stores') else ():
                other = stores.setdefault(store.path, store)
                same_images = other.pool.images_fingerprint == store.pool.images_fingerprint
                if other.settings != store.settings or not same_images:
                    raise ValueError(
                        f'two mosaics ask for different tile stores in the same file {store.path}: '
                        'each needs a store=dict(path=...) of its own'
                    )
    return list(stores.values())
