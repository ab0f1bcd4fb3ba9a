"""Split files: which reference, or which expression, is of which split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .annotation_schema import SPLIT
from .faults import Faults, Rule, fault
from .fileio import load_json, load_plain_pickle
from .referring_json import read_referring_json


def load_split_file(path: str) -> list:
    """Read the references of ``refs(*).p`` or ``grefs(*).json``; they are not checked.

    Args:
        path: A name that does not end in ``.json`` is read as a plain pickle.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: It holds no list.
        ValueError: It is damaged.
    """
    return _references(_content(path), path)


def read_splits(path: str, rules: dict[str, Rule] = SPLIT) -> Iterator[tuple[str, dict]]:
    """Read the splits of a file of any form.

    Args:
        path: ``refs(*).p``, ``grefs(*).json``, or this package's JSON form
            (:mod:`nemo_mmseg.utils.referring_json`).
        rules: Of a reference, that of ``split`` among them. Defaults to that one.

    Yields:
        The split of each reference, and the reference; of the JSON form that of each expression
        that is of one, and its image.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A field holds what it must not.
        ValueError: The file is damaged.
    """
    is_lines = path.endswith('.jsonl')
    content = None if is_lines else _content(path)
    if is_lines or (type(content) is dict and 'images' in content):
        for image in read_referring_json(path, content=content).images:
            for one in image['expressions']:
                if one['split'] is not None:
                    yield one['split'], image
        return
    refs = _references(content, path)
    Faults().check(refs, rules, path, 'reference', 'ref_id')
    for ref in refs:
        yield ref['split'], ref


def _content(path: str) -> Any:
    return load_json(path) if path.endswith('.json') else load_plain_pickle(path)


def _references(content: Any, path: str) -> list:
    if type(content) is not list:
        raise fault(path, 'the file', content, 'a list of references')
    return content
