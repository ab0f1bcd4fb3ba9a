"""Which files a data set and a network read, whether they are there, where they come from."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from nemo_mmseg.utils.parquet import in_root, is_parquet, shards_by_split

REFER = 'https://github.com/lichengunc/refer (its servers are often down: see its issue 14)'
ROBUST = 'https://github.com/jianzongwu/robust-ref-seg (Google Drive)'
ZOM = 'https://github.com/toggle1995/RIS-DMMI (Google Drive, Baidu)'
COCO = 'https://cocodataset.org/#download'
HUB = 'hf download --repo-type dataset'
LOCAL = "nothing: the hub's cache is searched, too; or add --local-dir and this folder"
OWN = 'yours (docs/ready_data.md)'
TO_JSON = 'python tools/dataset_converters/to_referring_json.py refcoco ... (docs/own_data.md)'


@dataclass(frozen=True)
class Origin:
    """Where files come from.

    Attributes:
        where: A page, or a command.
        size: Of the download, as its page says; empty where it is not known.
        note: What is to do with it; empty if nothing.
    """

    where: str
    size: str = ''
    note: str = ''


OWN_MASKS = 'yours; not needed if no mask is a PNG (docs/own_data.md)'
OWN_WEIGHTS = 'yours: weights that the config names'
OWN_SENTENCES = 'yours (docs/data.md#paraphrases)'
# The end of a path, as a pattern -> its source; the first that fits counts.
SOURCES = {
    'reviewed_*.json': Origin(OWN),
    'refshapes*/referring.json': Origin(TO_JSON),
    'pseudo_masks/*/*': Origin('python tools/train_tris.py PIPELINE (docs/weak_supervision.md)'),
    '*refshapes*/*': Origin('python tools/dataset_converters/make_refshapes.py data/refshapes'),
    'train2014': Origin(f'{COCO}: 2014 train images', '13 GB, 82,783 images', 'unzip'),
    'trainval2014': Origin(
        f'{COCO}: 2014 train and val images',
        '13 GB and 6 GB, 123,287 images',
        'unzip both into this one folder',
    ),
    'refcoco/*': Origin(REFER, '', 'refcoco.zip: unzip'),
    'refcoco+/*': Origin(REFER, '', 'refcoco+.zip: unzip'),
    'refcocog/*': Origin(REFER, '', 'refcocog.zip: unzip'),
    'grefcoco/*': Origin('https://github.com/henghuiding/gRefCOCO'),
    'rrefcoco*/*': Origin(ROBUST),
    'ref-zom/refs(final).p': Origin(ZOM, '', 'rename "Ref-ZOM(final).p"'),
    'ref-zom/*': Origin(ZOM),
    'referit/annotations/*': Origin('https://github.com/hassanhub/MultiGrounding'),
    'referit/images': Origin('IAPR TC-12 (SAIAPR)', '', 'all images in one folder'),
    'jxu124/refcoco': Origin(f'{HUB} jxu124/refcoco', '39 MB', LOCAL),
    'jxu124/refcocoplus': Origin(f'{HUB} jxu124/refcocoplus', '40 MB', LOCAL),
    'jxu124/refcocog': Origin(f'{HUB} jxu124/refcocog', '46 MB', LOCAL),
    'moondream/refcoco-m': Origin(f'{HUB} moondream/refcoco-m', '610 MB', LOCAL),
}
# Settings that name a file of JSON or a pickle, ends of names of weights, readers of Parquet.
FILES = ('ann_file', 'split_file', 'mask_file', 'reviewed')
WEIGHTS = ('.pth', '.pt', '.ckpt', '.bin', '.safetensors', '.npz', '.npy')
PARQUET_TYPES = ('ParquetRefCOCODataset', 'RefCOCOMDataset')


@dataclass(frozen=True)
class NeededFile:
    """A file or folder that a data set reads.

    Attributes:
        path: Where it is, or must be put. Of Parquet files, the folder below ``data_root``; the
            hub's cache does as well.
        present: Whether it is there.
        size: Of the file in bytes; None for what is not there, and for folders.
        source: Where it comes from; None where that is not known.
    """

    path: str
    present: bool
    size: int | None
    source: Origin | None


def source_of(path: str) -> Origin | None:
    """Return where a file or folder comes from, by its last two parts; None if not known."""
    parts = posixpath.normpath(path.replace(os.sep, '/')).split('/')
    for pattern, source in SOURCES.items():
        if fnmatchcase('/'.join(parts[-1 - pattern.count('/') :]), pattern):
            return source
    return None


def files_of(settings: dict) -> Iterator[NeededFile]:
    """Yield what a data set reads, before it is built.

    Args:
        settings: Its config; of a wrapper, see :func:`~nemo_mmseg.utils.config.leaf_datasets`.
    """
    root, split = settings.get('data_root') or '', str(settings.get('split', ''))
    parquet = settings.get('type') in PARQUET_TYPES
    for key in FILES:
        name = settings.get(key)
        if name and not (parquet and key == 'ann_file'):
            yield _file(os.path.join(root, name.replace('{split}', split)))
    for name in (settings.get('ann_file') if parquet else None, settings.get('gt_overlay')):
        if name:
            yield _parquet(root, name)
    for key in ('img_path', 'mask_path'):
        folder = (settings.get('data_prefix') or {}).get(key)
        if folder and settings.get('type') != 'RefCOCOMDataset':  # which has its images inside
            path = os.path.join(root, folder)
            present = os.path.isdir(path) and any(os.scandir(path))
            source = Origin(OWN_MASKS) if key == 'mask_path' else source_of(path)
            yield NeededFile(path, present, None, source)
    for transform in (settings, *settings.get('pipeline', ())):
        guard = transform.get('leak_guard') or {}
        for name in guard.get('split_files', ()):
            path = os.path.join(guard.get('data_root', ''), name)
            yield _parquet('', path) if is_parquet(path) else _file(path)
        if transform.get('paraphrases'):
            yield NeededFile(*_place(transform['paraphrases']), Origin(OWN_SENTENCES))


def weights_of(cfg: dict) -> Iterator[NeededFile]:
    """Yield the files of weights that a config names, but what is downloaded by itself.

    Args:
        cfg: Config of a run. Its ``load_from`` counts, and ``pretrained`` and ``checkpoint`` of all
            parts of its ``model``.
    """
    named = [cfg.get('load_from'), *_weights_in(cfg.get('model'))]
    for name in named:
        if isinstance(name, str) and '://' not in name and name.endswith(WEIGHTS):
            yield NeededFile(*_place(name), Origin(OWN_WEIGHTS))


def _weights_in(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ('pretrained', 'checkpoint'):
                yield value
            yield from _weights_in(value)
    elif isinstance(part, (list, tuple)):
        for one in part:
            yield from _weights_in(one)


def _file(path: str) -> NeededFile:
    return NeededFile(*_place(path), source_of(path))


def _place(path: str) -> tuple[str, bool, int | None]:
    """Return a file with whether it is there, and its size."""
    present = os.path.isfile(path)
    return path, present, os.path.getsize(path) if present else None


def _parquet(root: str, name: str) -> NeededFile:
    """Look for Parquet files below the root and in the hub's cache."""
    try:
        shards = shards_by_split(in_root(root, name))
    except FileNotFoundError:
        shards = {}
    files = [file for of_split in shards.values() for file in of_split]
    size = sum(map(os.path.getsize, files))
    path = os.path.dirname(files[0]) if files else os.path.join(root, name)
    return NeededFile(path, bool(files), size if files else None, source_of(name))
