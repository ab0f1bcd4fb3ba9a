"""Keeps images of validation and test splits out of mosaics, or out of training altogether.

RefCOCO, RefCOCO+ and RefCOCOg share COCO's train2014, and split it differently: images that one
trains on are those another is tested on. As a negative such an image would be seen in training; as
a sample, alone or mixed with others (CutMix, MixGen, copy-paste), it is, with its mask. So a mosaic
takes a guard for its negatives, and a data set one for all its images.
Images are told by COCO's number, which is the same in the names of 2014 and 2017, others by the
name of the file; a renamed copy is not recognised.
"""

from __future__ import annotations

import inspect
import os.path as osp
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from prettytable import PrettyTable

from nemo_mmseg.utils.fileio import load_json, load_plain_pickle

from .pool import FolderPool, ImagePool

TEST_SPLITS = ('val', 'test', 'testA', 'testB')


class LeakError(ValueError):
    """Images of a validation or test split would be seen in training."""


def image_key(name: str) -> str:
    """What tells an image: COCO's number (12 digits), else the name of the file."""
    name = osp.basename(name)
    coco = re.fullmatch(r'(?:COCO_[a-z]+\d+_)?(\d{12})\.\w+', name)
    return coco[1] if coco else name


@lru_cache(maxsize=32)
def split_images(split_file: str) -> dict[str, frozenset[str]]:
    """The images of every split of a data set.

    Args:
        split_file: ``refs(*).p``, or gRefCOCO's ``grefs(unc).json``.

    Returns:
        By split, the keys of its images; see :func:`image_key`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no references, or one of them does not name split and file.
    """
    load = load_json if split_file.endswith('.json') else load_plain_pickle
    images: dict[str, set[str]] = {}
    try:
        for ref in load(split_file):
            key = image_key(ref['file_name'])
            if key == ref['file_name']:  # with the number of the annotation behind the image's name
                key = image_key(re.sub(r'_\d+(?=\.\w+$)', '', key))
            images.setdefault(ref['split'], set()).add(key)
    except (KeyError, TypeError) as error:
        raise ValueError(f'{split_file}: a reference lacks split or file_name: {error!r}') from None
    return {split: frozenset(keys) for split, keys in images.items()}


class LeakGuard:
    """Finds images of validation and test splits among others, and refuses or drops them.

    Args:
        split_files: Files that say what is held out, e.g. ``('refcoco/refs(unc).p',
            'refcocog/refs(umd).p')``.
        data_root: Folder that they are relative to. Defaults to the current one.
        splits: The splits that are held out; those a file does not have are passed over. Defaults
            to all validation and test splits.
        action: ``'error'`` refuses such images, ``'drop'`` leaves them out. Defaults to
            ``'error'``.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The action is unknown, no file is named, or none has any of the splits.
    """

    def __init__(
        self,
        split_files: Sequence[str],
        data_root: str = '',
        splits: Sequence[str] = TEST_SPLITS,
        action: str = 'error',
    ) -> None:
        if action not in ('error', 'drop'):
            raise ValueError(f"leak_guard: action={action!r} is neither 'error' nor 'drop'")
        if not split_files or isinstance(split_files, str):
            raise ValueError('leak_guard: split_files must be a list of refs(*).p files')
        self.action = action
        self.held_out: dict[str, frozenset[str]] = {}
        self.files = {osp.realpath(osp.join(data_root, file)) for file in split_files}
        for file in split_files:
            path = osp.join(data_root, file)
            if not osp.isfile(path):
                raise FileNotFoundError(
                    f'leak_guard: there is no {path}, which says what is held out; leave it out of '
                    'split_files if the model is not tested on it'
                )
            of_split = split_images(path)
            for split in splits:
                if split in of_split:
                    self.held_out[f'{file} {split}'] = of_split[split]
        if not self.held_out:
            raise ValueError(
                f'leak_guard: {", ".join(split_files)} have none of the splits {tuple(splits)}'
            )
        self._keys = frozenset().union(*self.held_out.values())
        self._clean_pools: dict[tuple[str, str], ImagePool] = {}
        self._leaked_rows: dict[tuple[str, str], np.ndarray] = {}

    @classmethod
    def from_config(cls, options: dict) -> LeakGuard:
        """The guard that a config asks for.

        Args:
            options: What ``leak_guard`` is in the config of a mosaic or a data set.

        Raises:
            ValueError: It is no dict of a guard's arguments.
        """
        cls.check(options)
        return cls(**options)

    @classmethod
    def check(cls, options: dict) -> None:
        """Refuse what is no dict of a guard's arguments; its files are not read.

        Args:
            options: What ``leak_guard`` is in the config of a mosaic or a data set.

        Raises:
            ValueError: It is not.
        """
        try:
            files = inspect.signature(cls).bind(**options).arguments['split_files']
            if not isinstance(files, (list, tuple)):
                raise TypeError(f'split_files={files!r} is no list')
        except TypeError as error:
            raise ValueError(
                f'leak_guard={options!r} must be a dict such as dict(split_files='
                f"['refcoco/refs(unc).p'], data_root='data/', action='drop'): {error}"
            ) from error

    def leaked(self, names: Sequence[str]) -> np.ndarray:
        """Which (I,) bool of some images, by their file names, are held out."""
        return np.array([image_key(str(name)) in self._keys for name in names], dtype=bool)

    def kept(self, names: Sequence[str], what: str, least: int = 1) -> np.ndarray:
        """Which (I,) bool of some images may be seen in training.

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
        counts = {where: len(found & keys) for where, keys in self.held_out.items()}
        where = ', '.join(f'{count} of {where}' for where, count in counts.items() if count)
        raise LeakError(
            f'{len(leaked)} of the {len(kept)} {what} are images of validation or test splits: '
            f'{where}; the first is {leaked[0]}. '
            + (
                "leak_guard=dict(split_files=[...], action='drop') leaves them out"
                if self.action == 'error'
                else f'Without them there are fewer than {least}'
            )
        )

    def clean(self, pool: ImagePool) -> ImagePool:
        """The pool without images that are held out.

        Args:
            pool: Images from which negatives are drawn.

        Returns:
            The pool itself where all is well.

        Raises:
            LeakError: It holds such images and the action is ``'error'``, or fewer than two images
                would be left.
        """
        key = pool.root, pool.fingerprint
        if key not in self._clean_pools:
            self._clean_pools[key] = self._cleaned(pool)
        return self._clean_pools[key]

    def _cleaned(self, pool: ImagePool) -> ImagePool:
        what = f'images from which negatives are drawn ({pool.root})'
        kept = self.kept(pool.names, what, least=2)
        return pool if kept.all() else pool.subset(np.flatnonzero(kept))

    def leaked_rows(self, bank: Any) -> np.ndarray:
        """Which images (I,) bool of a :class:`~nemo_mmseg.mining.NegativeBank` are held out."""
        key = str(bank.path), bank.metadata['fingerprint']
        if key not in self._leaked_rows:
            self._leaked_rows[key] = self.leaked(bank.image_names)
        return self._leaked_rows[key]

    def band(self, bank: Any, sent_id: int, rule: Any, expression: str | None = None) -> Any:
        """The band of an expression, in which images that are held out give way to the next ones.

        Args:
            bank: The :class:`~nemo_mmseg.mining.NegativeBank`.
            sent_id: Sentence id of the expression.
            rule: The :class:`~nemo_mmseg.mining.BandRule`.
            expression: The text, for the error message.

        Returns:
            The :class:`~nemo_mmseg.mining.Band`.
        """
        leaked = self.leaked_rows(bank)
        top_k = wanted = rule.top_k
        while True:
            band = bank.band(sent_id, *rule._replace(top_k=wanted), expression)
            kept = np.flatnonzero(~leaked[band.rows])[:top_k]
            if len(kept) == top_k or len(band.rows) < wanted:
                break
            wanted += max(top_k - len(kept), 16)
        return band._replace(
            rows=band.rows[kept],
            similarities=band.similarities[kept],
            truncated=band.truncated and len(kept) < top_k,
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}({list(self.held_out)}, action={self.action!r})'


def refuse_own_tests(dataset: Any, pool: ImagePool, guard: LeakGuard | None = None) -> None:
    """Refuse a pool with images that the data set itself holds out, asked for or not.

    Args:
        dataset: A referring data set; one without ``split_file`` has no other splits.
        pool: Other images, from which it draws negatives.
        guard: What the pool was cleaned by. If it knows the data set, nothing is left to be asked.

    Raises:
        LeakError: It has such images.
    """
    file = getattr(dataset, 'split_file', None)
    if file is None or not set(TEST_SPLITS) & set(split_images(file)):
        return
    if guard is None or osp.realpath(file) not in guard.files:
        LeakGuard([file]).clean(pool)


def overlap_table(split_files: Sequence[str], folders: Sequence[str] = ()) -> PrettyTable:
    """How many images pools of negatives share with validation and test splits.

    Args:
        split_files: ``refs(*).p`` of the data sets, each of which gives a pool (its ``train``
            split) and the splits that are held out.
        folders: Folders of images that are pools, too.

    Returns:
        A table with a row for each split that is held out, and a column for each pool: numbers of
        images.
    """
    of_file = {_title(file): split_images(file) for file in split_files}
    pools = {f'{name} train': of['train'] for name, of in of_file.items() if 'train' in of}
    for folder in folders:
        pools[folder] = frozenset(image_key(str(name)) for name in FolderPool(folder).names)
    table = PrettyTable(['images in both', 'all', *pools], align='r')
    table.align['images in both'] = 'l'
    table.add_row(['all', '', *map(len, pools.values())], divider=True)
    for name, of in of_file.items():
        for split in sorted(of.keys() - {'train'}):
            shared = [len(pool & of[split]) for pool in pools.values()]
            table.add_row([f'{name} {split}', len(of[split]), *shared])
    return table


def _title(split_file: str) -> str:
    """`refcocog (umd)` for `data/refcocog/refs(umd).p`."""
    folder, file = osp.split(split_file)
    maker = re.search(r'\(.*\)', file)
    return f'{osp.basename(folder)} {maker[0] if maker else file}'
