"""Keeps images of validation and test splits out of mosaics, or out of training altogether.

RefCOCO, RefCOCO+ and RefCOCOg share COCO's train2014, and split it differently: images that one
trains on are those another is tested on. As a negative such an image would be seen in training. As
a sample, alone or mixed with others (CutMix, MixGen, copy-paste), it would be seen with its mask.
So a mosaic takes a guard for its negatives, and a data set takes one for all its images.

Images are told apart by COCO's number, which is the same in the names of 2014 and 2017, and others
by the name of the file. Where both names have folders, these must agree, as far as the shorter name
tells them. A renamed copy is not recognised.
"""

from __future__ import annotations

import os.path as osp
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from nemo_mmseg.utils.annotation_schema import FILE_NAME, SPLIT
from nemo_mmseg.utils.faults import Faults
from nemo_mmseg.utils.parquet import find_shards, is_parquet, read_rows, shards_by_split
from nemo_mmseg.utils.split_file import read_splits

from .bank import NegativeBank
from .pool import ImagePool

TEST_SPLITS = ('val', 'test', 'testA', 'testB')
NAMED = {**SPLIT, 'file_name': FILE_NAME}


class LeakError(ValueError):
    """Images of a validation or test split would be seen in training."""


def image_key(name: str) -> str:
    """Return what tells an image: COCO's number (12 digits), else the name with its folders."""
    name = posixpath.normpath(name)
    coco = re.fullmatch(r'(?:.*/)?(?:COCO_[a-z]+\d+_)?(\d{12})\.\w+', name)
    return coco[1] if coco else name.lstrip('/')


class ImageKeys:
    """Keys of images. A key is in it whose folders agree with one of these, where both have some.

    Args:
        keys: See :func:`image_key`.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._of_file: dict[str, list[str]] = {}
        for key in keys:
            self._of_file.setdefault(posixpath.basename(key), []).append(f'/{key}')

    def __contains__(self, key: str) -> bool:
        others = self._of_file.get(posixpath.basename(key), ())
        return any(other.endswith(f'/{key}') or f'/{key}'.endswith(other) for other in others)


@lru_cache(maxsize=32)
def split_images(split_file: str) -> dict[str, frozenset[str]]:
    """Read the images of every split of a data set.

    Args:
        split_file: ``refs(*).p``, gRefCOCO's ``grefs(unc).json``, this package's JSON form
            (:mod:`nemo_mmseg.utils.referring_json`), or RefCOCO's Parquet: a file, its folder, or
            its name in the hub's cache.

    Returns:
        By split, the keys of its images; see :func:`image_key`.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A reference does not name split and file; names it.
        ValueError: The file is damaged.
    """
    images: dict[str, set[str]] = {}
    for split, keys in _keys_by_split(split_file):
        images.setdefault(split, set()).update(keys)
    return {split: frozenset(keys) for split, keys in images.items()}


def _keys_by_split(split_file: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the split and the image of each reference, or expression."""
    if is_parquet(split_file):
        yield from _keys_in_parquet(split_file)
        return
    for split, record in read_splits(split_file, NAMED):
        yield split, _keys(record)


def _keys_in_parquet(source: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the split and the image of each row; ``validation`` is called ``val``."""
    for name in shards_by_split(source):
        for file in find_shards(source, [name]):
            for row, ref in read_rows(file, [*NAMED, 'ann_id'], 'a leak guard'):
                Faults().check_one(ref, NAMED, f'{file}: row {row}')
                split = 'val' if ref['split'] == 'validation' else ref['split']
                yield split, _keys(ref)


def _keys(ref: dict) -> set[str]:
    """Return the key of a reference's image.

    The name can have the number of an annotation behind that of the image: always behind COCO's.
    Elsewhere ``img_12.jpg`` can also be an image. Then both names are held out, unless the number
    is the annotation's.
    """
    key = image_key(ref['file_name'])
    if 'expressions' in ref:  # an image of the JSON form, which has its own name
        return {key}
    number = re.search(r'_(\d{1,18})(?=\.\w+$)', key)
    if number is None:
        return {key}
    short = image_key(key[: number.start()] + key[number.end() :])
    told = short.isdecimal() or int(number[1]) == ref.get('ann_id')
    return {short} if told else {short, key}


class LeakGuard:
    """Find images of validation and test splits among others, and refuse or drop them.

    Args:
        split_files: Files that say what is held out, e.g. ``['refcoco/refs(unc).p',
            'refcocog/refs(umd).p']``.
        data_root: Folder that they are relative to. Defaults to the current one.
        splits: The splits that are held out; those a file does not have are passed over. Defaults
            to all validation and test splits.
        action: ``'error'`` refuses such images, ``'drop'`` leaves them out. Defaults to
            ``'error'``.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The action is unknown, or no file has any of the splits.
    """

    def __init__(
        self,
        split_files: Sequence[str],
        data_root: str = '',
        splits: Sequence[str] = TEST_SPLITS,
        action: str = 'error',
    ) -> None:
        self.action = action
        self.held_out: dict[str, frozenset[str]] = {}
        self.files = {osp.realpath(osp.join(data_root, file)) for file in split_files}
        for file in split_files:
            of_split = split_images(osp.join(data_root, file))
            self.held_out.update({f'{file} {s}': of_split[s] for s in splits if s in of_split})
        if not self.held_out or action not in ('error', 'drop'):
            raise ValueError(
                f'leak_guard: {list(split_files)} must be files with the splits {tuple(splits)}, '
                f"and action={action!r} must be 'error' or 'drop'"
            )
        self._keys = ImageKeys(frozenset().union(*self.held_out.values()))
        self._clean_pools: dict[tuple[str, str], ImagePool] = {}
        self._leaked_rows: dict[tuple[str, str], np.ndarray] = {}

    def leaked(self, names: Sequence[str]) -> np.ndarray:
        """Return which ``(I,)`` bool of some images, by their file names, are held out."""
        return np.array([image_key(str(name)) in self._keys for name in names], dtype=bool)

    def kept(self, names: Sequence[str], what: str, least: int = 1) -> np.ndarray:
        """Return which ``(I,)`` bool of some images may be seen in training.

        Args:
            names: Their file names.
            what: What they are, for the error message.
            least: How many must be left.

        Raises:
            LeakError: Some are held out and the action is ``'error'``, or too few would be left.
        """
        kept = ~self.leaked(names)
        if kept.all() or (self.action == 'drop' and kept.sum() >= least):
            return kept
        leaked = sorted(str(name) for name in np.asarray(names)[~kept])
        found = {image_key(name) for name in leaked}
        counts = {
            where: sum(key in of_split for key in found)
            for where, of_split in zip(self.held_out, map(ImageKeys, self.held_out.values()))
        }
        where = ', '.join(f'{count} of {where}' for where, count in counts.items() if count)
        raise LeakError(
            f'{len(leaked)} of the {len(kept)} {what} are images of validation or test splits: '
            f'{where}. The first is {leaked[0]}. leak_guard=dict(split_files=[...], '
            f"action='drop') leaves them out, if at least {least} are left"
        )

    def clean(self, pool: ImagePool) -> ImagePool:
        """Return a pool without the images that are held out.

        Args:
            pool: Images from which negatives are drawn.

        Raises:
            LeakError: It holds such images and the action is ``'error'``, or fewer than two images
                would be left.
        """
        key = pool.root, pool.fingerprint
        if key not in self._clean_pools:
            what = f'images from which negatives are drawn ({pool.root})'
            kept = self.kept(pool.names, what, least=2)
            self._clean_pools[key] = pool if kept.all() else pool.subset(np.flatnonzero(kept))
        return self._clean_pools[key]

    def leaked_rows(self, bank: NegativeBank) -> np.ndarray:
        """Return which images ``(I,)`` bool of a bank are held out."""
        key = str(bank.path), bank.metadata['fingerprint']
        if key not in self._leaked_rows:
            self._leaked_rows[key] = self.leaked(bank.image_names)
        return self._leaked_rows[key]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({list(self.held_out)}, action={self.action!r})'


def refuse_tested_images(
    split_file: str | None, pool: ImagePool, guard: LeakGuard | None = None
) -> None:
    """Refuse val and test images of a data set among its negatives, even without a leak guard.

    Args:
        split_file: Of the data set; None for one without splits.
        pool: Other images, from which it draws negatives.
        guard: What the pool was cleaned by. If it knows the data set, nothing is left to do.

    Raises:
        LeakError: The pool has such images.
    """
    if split_file is None or not set(TEST_SPLITS) & set(split_images(split_file)):
        return
    if guard is None or osp.realpath(split_file) not in guard.files:
        LeakGuard([split_file]).clean(pool)
