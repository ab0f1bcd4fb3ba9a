"""What data sets of referring segmentation share: an item is an image and its expressions."""

from __future__ import annotations

import hashlib
import os.path as osp
import warnings
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.fileio import exists, list_dir_or_file
from mmengine.logging import print_log

from nemo_mmseg.negatives.leak_guard import LeakGuard, split_images
from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.utils.fileio import collector_paused
from nemo_mmseg.utils.user_cache import user_cache

from .annotation_cache import (
    CachedItems,
    cache_file,
    decode_item,
    encode_items,
    read_items,
    write_items,
)
from .item_view import ItemView
from .refer import Reference
from .samplers import SampleIndex, seeded_global_state
from .wrappers import transforms_in

GROUPINGS = ('reference', 'expression', 'image')
# Bytes of annotations below which reading takes less than a second, and no cache is kept.
CACHED_FROM = 16_000_000
# Entries of an item that hold one value an expression.
PER_EXPRESSION = (
    'expressions',
    'sent_ids',
    'ref_ids',
    'targets',
    'num_targets',
    'num_distractors',
)


def _grouped(references: Sequence[Reference], group_by: str) -> list[list[tuple[Reference, range]]]:
    """Which expressions (by position in their reference) share an item."""
    if group_by == 'expression':
        return [[(r, range(i, i + 1))] for r in references for i in range(len(r.expressions))]
    whole = [(r, range(len(r.expressions))) for r in references]
    if group_by == 'reference':
        return [[entry] for entry in whole]
    by_image: dict[int, list] = {}
    for reference, positions in whole:
        by_image.setdefault(reference.image['id'], []).append((reference, positions))
    return list(by_image.values())


class BaseReferringDataset(BaseDataset, ABC):
    """Base of the referring data sets: grouping, the sample's random state, the image pool.

    A sub-class gives :meth:`load_reference_list`. Indices of our samplers carry the pass over the
    data; each sample then gets its own generator (``results['rng']``), the pass
    (``results['epoch']``), the images of the split (``results['pool']``) and its items
    (``results['items']``).

    Args:
        group_by: What one item is: ``'reference'`` (training: one epoch an object),
            ``'expression'``, or ``'image'`` (evaluation: an image is read and encoded once for all
            its expressions).
        check_images: Whether one directory listing looks for every image when the data set is
            built.
        leak_guard: Which images may not be trained on because they are tested on: dict of
            ``split_files``, ``data_root``, ``splits`` and ``action``, see
            :class:`nemo_mmseg.datasets.LeakGuard`. With ``action='drop'`` their references are left
            out, and so are they as negatives or parts of mixed samples. Defaults to None.
        cache: Whether the items are kept in a file, see
            :mod:`nemo_mmseg.datasets.annotation_cache`: True does so for annotations of over 16 MB,
            in the user's cache folder or in ``$NEMO_MMSEG_CACHE``; a string names another folder;
            False reads everything each time. Where nothing can be written there is none, nor for
            sub-classes outside of this package. Defaults to True.
        **kwargs: Of MMEngine's ``BaseDataset``: ``ann_file``, ``data_root``, ``data_prefix``,
            ``pipeline``, ``test_mode``, ``indices``, ``serialize_data``, ``lazy_init``,
            ``metainfo``.

    Raises:
        ValueError: ``group_by`` is unknown, or the files are wrong (see
            :mod:`nemo_mmseg.datasets.refer`).
        FileNotFoundError: A file or an image is missing.
        LeakError: There are such images and the guard's action is ``'error'``.
    """

    METAINFO = dict(classes=('background', 'referent'), palette=[[0, 0, 0], [220, 20, 60]])

    def __init__(
        self,
        group_by: str = 'reference',
        check_images: bool = True,
        leak_guard: dict | None = None,
        cache: bool | str = True,
        **kwargs: Any,
    ) -> None:
        if group_by not in GROUPINGS:
            raise ValueError(f'group_by must be one of {GROUPINGS}, not {group_by!r}')
        if leak_guard is not None:
            LeakGuard.check(leak_guard)
        self.group_by = group_by
        self.check_images = check_images
        self.leak_guard = leak_guard
        self.cache = cache
        self._remarks: list[tuple[str, bool]] = []
        self._warned_of_plain_index = False
        self._text_items = False  # True: JSON, from the cache; False: MMEngine's serialisation
        super().__init__(**kwargs)

    @abstractmethod
    def load_reference_list(self, faults: list[str] | None = None) -> list[Reference]:
        """The references of the split, read from the data set's files.

        Args:
            faults: Gets a line for each faulty reference, which is then left out; None stops at the
                first.
        """

    def annotation_files(self) -> tuple[list[str], dict] | None:
        """The files that the items are made of, and what else they depend on.

        Returns:
            None where the items cannot be kept.
        """
        return None

    def load_data_list(self) -> list[dict]:
        """One item per reference, expression or image (called by MMEngine)."""
        references = self.load_reference_list()
        if self.leak_guard is not None:
            references = self._without_leaks(references)
        if self.check_images:
            self._look_for_images({reference.image['file_name'] for reference in references})
        return [self._item(group) for group in _grouped(references, self.group_by)]

    def _without_leaks(self, references: Sequence[Reference]) -> list[Reference]:
        names = sorted({reference.image['file_name'] for reference in references})
        what = f'images of {getattr(self, "split_file", type(self).__name__)}'
        kept = LeakGuard(**self.leak_guard).kept(names, what)
        self._remark(f'leak_guard leaves out {(~kept).sum()} of {len(kept)} {what}')
        left = {name for name, keep in zip(names, kept) if keep}
        return [reference for reference in references if reference.image['file_name'] in left]

    @collector_paused()
    def full_init(self) -> None:
        """Read the items, and let transforms look at the images they draw from."""
        if self._fully_initialized:
            return
        if not self._init_from_cache():
            super().full_init()
        for transform in transforms_in(self.pipeline):
            if hasattr(transform, 'check_pool'):
                transform.check_pool(self)

    def _remark(self, text: str, warning: bool = False) -> None:
        """Say something about the annotations, also when they come from the cache."""
        self._remarks.append((text, warning))
        if warning:
            warnings.warn(text, stacklevel=2)
        else:
            print_log(text, 'current')

    def _cache_file(self) -> Path | None:
        files = self.annotation_files()
        plain = self.serialize_data and self._indices is None and self.cache is not False
        if files is None or not plain or not all(map(osp.isfile, files[0])):
            return None
        if self.cache is True and sum(map(osp.getsize, files[0])) < CACHED_FROM:
            return None
        options = dict(files[1], group_by=self.group_by, leak_guard=self.leak_guard)
        options.update(type=type(self).__name__, images=self.data_prefix['img_path'])
        title = '-'.join([*Path(files[0][0]).with_suffix('').parts[-2:], self.group_by])
        folder = user_cache('annotations') if self.cache is True else Path(self.cache)
        return folder and cache_file(title, options, files[0], folder)

    def _init_from_cache(self) -> bool:
        """What MMEngine's ``full_init`` does, by way of a file; False where there can be none."""
        path = self._cache_file()
        if path is None:
            return False
        found = read_items(path)
        if found is None:
            split_images.cache_clear()  # what is kept must not be made of a file as it was before
            self.data_list = self.load_data_list()
            self.filter_data()
            pool = self._pool
            found = CachedItems(
                *encode_items(self.data_list), pool.ids, pool.names, pool.fingerprint, self._remarks
            )
            self.data_list = []
            try:
                if self._cache_file() != path:
                    raise OSError('the files changed while they were read')
                write_items(path, found)
            except OSError as error:
                print_log(f'annotations are not cached in {path.parent}: {error}', 'current')
            else:
                found = read_items(path) or found  # the file's pages are every process's
        else:
            if self.check_images:
                self._look_for_images(set(found.image_names.tolist()))
            for remark in found.remarks:
                self._remark(*remark)
        self.data_bytes, self.data_address = found.items, found.ends
        self._pool = ImagePool(
            self.data_prefix['img_path'], found.image_ids, found.image_names, found.fingerprint
        )
        self._text_items = self._fully_initialized = True
        return True

    def get_data_info(self, idx: int) -> dict:
        """An item before any transform (called by MMEngine)."""
        if not self._fully_initialized:
            self.full_init()
        if not self._text_items:
            return super().get_data_info(idx)
        index = idx if idx >= 0 else len(self) + idx
        return dict(decode_item(self.data_bytes, self.data_address, index), sample_idx=index)

    def _look_for_images(self, names: set[str]) -> None:
        folder = self.data_prefix['img_path']
        present = set(list_dir_or_file(folder, list_dir=False)) if exists(folder) else set()
        missing = sorted(names - present)
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} images of the split are not in {folder}, the first: {missing[0]}'
            )

    def _item(self, group: list[tuple[Reference, range]]) -> dict:
        image = group[0][0].image
        item: dict[str, Any] = dict(
            img_path=osp.join(self.data_prefix['img_path'], image['file_name']),
            img_id=int(image['id']),
            height=int(image['height']),
            width=int(image['width']),
            instances=[],
            **{key: [] for key in PER_EXPRESSION},
        )
        rows: dict[int, int] = {}  # of an annotation among the instances; references can share it
        for reference, positions in group:
            for annotation in reference.annotations:
                if annotation['id'] not in rows:
                    rows[annotation['id']] = len(rows)
                    item['instances'].append(
                        dict(
                            ann_id=int(annotation['id']),
                            bbox=annotation.get('bbox'),
                            segmentation=annotation['segmentation'],
                            area=float(annotation.get('area', 0)),
                            category_id=int(annotation['category_id']),
                        )
                    )
            target = [rows[annotation['id']] for annotation in reference.annotations]
            for position in positions:
                item['expressions'].append(reference.expressions[position])
                item['sent_ids'].append(reference.sent_ids[position])
                item['ref_ids'].append(reference.ref_id)
                item['targets'].append(target)
                item['num_targets'].append(len(target))
                item['num_distractors'].append(reference.num_distractors)
        return item

    def filter_data(self) -> list[dict]:
        """Keep every item, and describe the pool (called by MMEngine).

        It is the last moment at which the unserialised items are at hand.
        """
        items = self.data_list
        if self._indices is not None:
            items = self._get_unserialized_subset(self._indices)
        names = {item['img_id']: osp.basename(item['img_path']) for item in items}
        texts = sorted(
            (sent_id, names[item['img_id']], text)
            for item in items
            for sent_id, text in zip(item['sent_ids'], item['expressions'])
        )
        digest = hashlib.sha256(repr((sorted(names.items()), texts)).encode())
        ids = sorted(names)
        self._pool = ImagePool(
            self.data_prefix['img_path'], ids, [names[i] for i in ids], digest.hexdigest()
        )
        return self.data_list

    @property
    def pool(self) -> ImagePool:
        """The images of the split."""
        self.full_init()
        return self._pool

    @property
    def fingerprint(self) -> str:
        """Digest of the image names, sentence ids and expressions of the split."""
        return self.pool.fingerprint

    def expressions(self) -> tuple[np.ndarray, list[str], np.ndarray]:
        """All expressions of the split, by rising sentence id.

        Returns:
            Sentence ids (E,) int64, the E texts, and the row (E,) int64 of each one's image in
            :attr:`pool`.
        """
        # Arrays of numbers: ten million expressions are little more than their texts.
        sent_ids, rows, texts = array('q'), array('q'), []
        for index in range(len(self)):
            item = self.get_data_info(index)
            sent_ids.extend(item['sent_ids'])
            texts += item['expressions']
            rows.extend([self.pool.row_of(item['img_id'])] * len(item['expressions']))
        order = np.argsort(sent_ids, kind='stable')
        if (np.diff(np.asarray(sent_ids)[order]) == 0).any():  # not by the order of the items
            order = sorted(order, key=lambda i: (sent_ids[i], texts[i], rows[i]))
        return (
            np.array(sent_ids, dtype=np.int64)[order],
            [texts[i] for i in order],
            np.array(rows, dtype=np.int64)[order],
        )

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on one item under the item's own random state.

        Args:
            idx: A :class:`SampleIndex`, or a plain index, which counts as the first pass with seed
                0.

        Returns:
            What the pipeline returns.
        """
        if not isinstance(idx, SampleIndex):
            self._warn_of_plain_index()
            idx = SampleIndex(int(idx) % len(self))
        rng = idx.generator()
        results = self.get_data_info(int(idx))
        results.update(
            rng=rng,
            epoch=idx.epoch,
            pool=self._pool,
            items=ItemView(self),
            dataset_name=self._metainfo.get('dataset_name'),
            seg_fields=[],
            reduce_zero_label=False,
        )
        with seeded_global_state(int(rng.integers(2**32))):
            return self.pipeline(results)

    def _warn_of_plain_index(self) -> None:
        if not self.test_mode and not self._warned_of_plain_index:
            self._warned_of_plain_index = True
            print_log(
                'An index came without its pass over the data, so every pass repeats the same '
                'samples. Use ReferringSampler (epochs) or InfiniteReferringSampler (iterations) '
                'for training.',
                'current',
                level=30,
            )
