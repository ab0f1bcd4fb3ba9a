"""Walk what wraps a data set or a transform: ``ConcatDataset``, ``RandomApply``, ..."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import BaseDataset


def transforms_in(pipeline: Any) -> Iterator[Any]:
    """Walk a transform, a pipeline, or lists of them, and the transforms inside, however deep."""
    if isinstance(pipeline, (list, tuple)):
        for child in pipeline:
            yield from transforms_in(child)
        return
    if pipeline is None or isinstance(pipeline, (str, dict)):
        return
    yield pipeline
    for name in ('transforms', 'pipeline'):
        yield from transforms_in(getattr(pipeline, name, None))


def data_sets_of(dataset: Any) -> Iterator[tuple[BaseDataset, list]]:
    """Walk the innermost data sets, each with the pipelines its samples run through.

    Args:
        dataset: A data set, or wrappers around some.

    Yields:
        A data set that wraps no other, and its pipelines, the innermost first.
    """
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    # Some wrappers (MMSegmentation's MultiImageMixDataset) have a pipeline of their own.
    pipeline = getattr(dataset, 'pipeline', None)
    if inner == [None]:
        yield dataset, [pipeline]
        return
    for child in inner:
        for data_set, pipelines in data_sets_of(child):
            yield data_set, [*pipelines, pipeline]
