"""The transforms of a pipeline, also those that stand inside others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def transforms_in(pipeline: Any) -> Iterator[Any]:
    """The transforms in a transform, a pipeline, or lists of them, however deep."""
    if isinstance(pipeline, (list, tuple)):
        for child in pipeline:
            yield from transforms_in(child)
        return
    if pipeline is None or isinstance(pipeline, (str, dict)):
        return
    yield pipeline
    for name in ('transforms', 'pipeline', 'transforms'):
        yield from transforms_in(getattr(pipeline, name, None))
