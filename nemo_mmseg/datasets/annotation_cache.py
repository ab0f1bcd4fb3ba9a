"""Keeps the items of a data set in a file, so that annotations are not parsed at every start.

A cache is found by what it was made of: its name holds a digest of the options, and one of the
*content* of the annotation files and of the code that reads them. A changed file, also one of equal
size and time, has another name, so nothing has to be compared or trusted, and processes that write
at the same time write the same. It is a safetensors file: JSON text of the items, and arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nemo_mmseg.utils.atomic_write import atomic_write

# What makes the items: a change of it is a change of every cache.
_CODE = (
    'annotation_cache.py',
    'grefcoco.py',
    'leak_guard.py',
    'refcoco.py',
    'refer.py',
    'referring.py',
)
_TENSORS = ('items', 'ends', 'image_ids', 'image_names')
# A part that is left of a writer that was killed is removed after a day.
_STALE = 24 * 3600
# So is a cache that was not read for three months, e.g. of a data set that was moved.
_UNUSED = 90 * 24 * 3600
# A cache, or a part of one.
_NAME = re.compile(
    r'\.?[^.].*-[0-9a-f]{12}-[0-9a-f]{32}\.safetensors(?P<part>\.[0-9a-f]{32}\.tmp)?'
)


def content_digest(files: Sequence[str | os.PathLike]) -> str:
    """Digest of the content of local files (about 1 GB/s).

    Raises:
        OSError: One cannot be read.
    """
    whole = hashlib.blake2b(digest_size=16)
    for file in files:
        one = hashlib.blake2b(digest_size=16)
        with open(file, 'rb') as stream:
            while block := stream.read(1 << 20):
                one.update(block)
        whole.update(one.digest())
    return whole.hexdigest()


def cache_file(title: str, options: dict, sources: Sequence[str], folder: Path) -> Path:
    """Where the items of a data set are, or will be.

    Args:
        title: What the file is called first, for who looks into the folder.
        options: What the items depend on beside the files; JSON-able.
        sources: The annotation files.
        folder: Folder of the caches.

    Raises:
        OSError: A source cannot be read.
    """
    code = [Path(__file__).with_name(name) for name in _CODE]
    asked = [options, [os.path.abspath(file) for file in sources]]
    asked = json.dumps(asked, sort_keys=True, default=str)
    what = hashlib.blake2b(asked.encode(), digest_size=6).hexdigest()
    title = re.sub(r'[^\w+.]+', '-', title)
    return Path(folder) / f'{title}-{what}-{content_digest([*sources, *code])}.safetensors'


@dataclass
class CachedItems:
    """What a data set is after its annotations have been read.

    Args:
        items: JSON text of all items, uint8.
        ends: Where the text of each item ends, int64 (n,); what MMEngine calls ``data_address``.
        image_ids: Ids of the pool's images, int64 (I,), rising.
        image_names: Their file names, (I,).
        fingerprint: Of the data set.
        remarks: What was said to the user while reading, and whether it was a warning.
    """

    items: np.ndarray
    ends: np.ndarray
    image_ids: np.ndarray
    image_names: np.ndarray
    fingerprint: str
    remarks: list[tuple[str, bool]]


def encode_items(items: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """The text of items that are made of what JSON has, and where each ends; see CachedItems."""
    encode = json.JSONEncoder(separators=(',', ':')).encode
    texts = [encode(item).encode() for item in items]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return np.frombuffer(b''.join(texts), np.uint8), ends


def decode_item(items: np.ndarray, ends: np.ndarray, index: int) -> dict:
    """One item, 0 <= index < n; each call makes a new one."""
    start = 0 if index == 0 else ends[index - 1]
    return json.loads(items[start : ends[index]].tobytes())


def read_items(path: Path) -> CachedItems | None:
    """Map a cache into memory, which all processes on a machine then share.

    Args:
        path: From :func:`cache_file`.

    Returns:
        None where there is none, or it is damaged.
    """
    try:
        # Of torch's kind, for those tensors are maps of the file, where NumPy's are copies.
        with safe_open(path, 'pt') as file:
            found = {name: file.get_tensor(name).numpy() for name in _TENSORS}
            meta = json.loads(file.metadata()['nemo_mmseg'])
        with suppress(OSError):  # another user's, or a disk that is not written to
            os.utime(path)
        names = found['image_names']
        found['image_names'] = names.view(f'<U{names.shape[1]}')[:, 0]
        return CachedItems(**found, **meta)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def write_items(path: Path, found: CachedItems) -> None:
    """Write a cache in one step, and remove what was there for older files.

    Args:
        path: From :func:`cache_file`.
        found: The items.

    Raises:
        OSError: The folder is not writable, or the disk is full.
    """
    names = np.ascontiguousarray(found.image_names)
    tensors = dict(
        items=found.items,
        ends=found.ends,
        image_ids=found.image_ids,
        image_names=names.view(np.int32).reshape(len(names), -1),
    )
    meta = json.dumps(dict(fingerprint=found.fingerprint, remarks=found.remarks))
    try:
        with atomic_write(path) as part:
            save_file(tensors, part, metadata=dict(nemo_mmseg=meta))
    except SafetensorError as error:  # so it calls a full disk, too
        raise OSError(str(error)) from error
    _tidy(path)


def _tidy(path: Path) -> None:
    """Remove caches of the same data set made of older files, those unused for long, and parts.

    The folder may be one that the user keeps other things in: nothing else is touched.
    """
    same = path.name.rsplit('-', 1)[0]
    for other in path.parent.iterdir():
        name = _NAME.fullmatch(other.name)
        try:
            if name is None or other == path:
                continue
            unused = time.time() - other.stat().st_mtime
            older = not name['part'] and other.name.rsplit('-', 1)[0] == same
            if older or unused > (_STALE if name['part'] else _UNUSED):
                other.unlink()
        except OSError:  # another process was faster, or has it open (Windows)
            continue
