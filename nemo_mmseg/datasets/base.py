"""Base of the referring data sets: references become items, an image with its expressions each."""

from __future__ import annotations

import copy
import hashlib
import os.path as osp
import posixpath
import warnings
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.fileio import exists, list_dir_or_file
from mmengine.logging import print_log

from nemo_mmseg.negatives.leak_guard import LeakGuard
from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.utils.faults import shown
from nemo_mmseg.utils.fileio import collector_paused

from .fingerprint import Fingerprint
from .refer import Reference
from .requirements import NeedsFiles
from .samplers import SampleIndex, seeded_global_state
from .wrappers import transforms_in

GROUPINGS = ('reference', 'expression', 'image')
# Entries of an item that hold one value an expression: those of all items, and those of items with
# clean labels.
ALWAYS_PER_EXPRESSION = (
    'expressions',
    'sent_ids',
    'ref_ids',
    'targets',
    'num_targets',
    'num_distractors',
)
PER_EXPRESSION = (*ALWAYS_PER_EXPRESSION, 'clean_masks', 'reviewed')


class ItemView:
    """The items of a data set by index, before any transform.

    Reading an item gives a copy of it. Copies of a sample share the view.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.dataset.get_data_info(int(index))

    def __deepcopy__(self, memo: dict) -> ItemView:
        return self


class BaseReferringDataset(BaseDataset, ABC):
    """Base of the referring data sets.

    A sub-class reads its files in :meth:`load_reference_list`. This class makes items of the
    references. An item is a dict of

    - ``img_path``, ``img_id``, ``height``, ``width``: the image;
    - ``instances``: the annotated targets, each a dict of ``ann_id``, ``bbox``, ``segmentation``,
      ``area`` and ``category_id``;
    - ``expressions``, ``sent_ids``, ``ref_ids``, ``targets`` (positions in ``instances``),
      ``num_targets`` and ``num_distractors``: lists with one entry per expression;
    - ``siblings``: indices of the other items of the same image.

    A pipeline also gets

    - ``rng`` and ``epoch``: the sample's own random generator, and its epoch (see
      :class:`SampleIndex`);
    - ``pool``: the images of the split (:class:`ImagePool`);
    - ``items``: all items by index (:class:`ItemView`);
    - ``dataset_name``, ``seg_fields`` and ``reduce_zero_label``.

    Args:
        group_by: What one item is: ``'reference'`` (training: an epoch shows each object once),
            ``'expression'``, or ``'image'`` (evaluation: each image is read and encoded once).
            Defaults to ``'reference'``.
        check_images: Whether to list the image folder and report missing images when the data set
            is built. Defaults to True.
        leak_guard: Arguments of :class:`LeakGuard`, which says what must not be trained on because
            it is tested on. ``action='drop'`` leaves out such images with their references.
            Defaults to None.
        indices: Items to keep: the first ones (int), the last ones (negative int), or a list.
            Defaults to None, which keeps all.
        **kwargs: Of MMEngine's ``BaseDataset``: ``ann_file``, ``data_root``, ``data_prefix``,
            ``pipeline``, ``test_mode``, ``serialize_data``, ``lazy_init``, ``metainfo``.

    Raises:
        ValueError: ``group_by`` is unknown, or a file is wrong (see
            :mod:`nemo_mmseg.datasets.refer`).
        FileNotFoundError: A file or an image is missing.
        LeakError: There are images that are tested on, and the guard's action is ``'error'``.
    """

    METAINFO = dict(classes=('background', 'referent'), palette=[[0, 0, 0], [220, 20, 60]])
    # The file that assigns images to splits, where a data set has one.
    split_file: str | None = None
    split: str | None = None

    def __init__(
        self,
        group_by: str = 'reference',
        check_images: bool = True,
        leak_guard: dict | None = None,
        indices: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if group_by not in GROUPINGS:
            raise ValueError(f'group_by must be one of {GROUPINGS}, not {group_by!r}')
        self.group_by = group_by
        self.check_images = check_images
        self.leak_guard = leak_guard
        # Not handed to MMEngine, which applies it after the pool and the siblings are known.
        self.indices = indices
        self._warned_of_plain_index = False
        super().__init__(**kwargs)

    @abstractmethod
    def load_reference_list(self, errors: list[str] | None = None) -> list[Reference]:
        """Read the references of the split.

        Args:
            errors: Gets a line for each faulty reference, which is then left out. Defaults to
                None: the first one raises.
        """

    def compare_with_published(self, references: Sequence[Reference], name: str) -> None:
        """Warn where a published split has other counts.

        Args:
            references: The references of the split.
            name: Key of ``PUBLISHED_SPLITS``; one that is none has no published counts.
        """
        remark = Fingerprint.of(references).remark(name, self.split)
        if remark:
            where = self.split_file or self.ann_file or name
            warnings.warn(f'{where}, split {self.split}: {remark}')

    def load_data_list(self) -> list[dict]:
        """Make the items (called by MMEngine)."""
        references = self.load_reference_list()
        if self.leak_guard is not None:
            references = self._without_leaks(references)
        if self.check_images:
            self.write_images()
            self._look_for_files(references)
        items = [self._item(group) for group in _grouped(references, self.group_by)]
        items = _with_siblings(_subset(items, self.indices))
        self._pool = self._pool_of(items)
        return items

    def images_inside(self) -> set[str]:
        """Return the paths of images that other files hold, and :meth:`write_images` writes."""
        return set()

    def write_images(self) -> None:
        """Write the images that other files hold, where they are missing."""

    def full_init(self) -> None:
        """Read the items, and let transforms refuse what does not go with them."""
        if self._fully_initialized:
            return
        with collector_paused():
            super().full_init()
        for transform in transforms_in(self.pipeline):
            if isinstance(transform, NeedsFiles):
                transform.requirements(self)

    def _without_leaks(self, references: Sequence[Reference]) -> list[Reference]:
        names = sorted({reference.image['file_name'] for reference in references})
        what = f'images of {self.split_file or type(self).__name__}'
        kept = LeakGuard(**self.leak_guard).kept(names, what)
        print_log(f'leak_guard leaves out {(~kept).sum()} of {len(kept)} {what}', 'current')
        left = {name for name, keep in zip(names, kept) if keep}
        return [reference for reference in references if reference.image['file_name'] in left]

    def _look_for_files(self, references: Sequence[Reference]) -> None:
        names = {reference.image['file_name'] for reference in references}
        refuse_missing(names, self.data_prefix['img_path'], 'images')

    def _item(self, group: list[tuple[Reference, int]]) -> dict:
        image = group[0][0].image
        item: dict[str, Any] = dict(
            img_path=osp.join(self.data_prefix['img_path'], image['file_name']),
            img_id=int(image['id']),
            height=int(image['height']),
            width=int(image['width']),
            instances=[],
            **{key: [] for key in ALWAYS_PER_EXPRESSION},
        )
        rows: dict[int, int] = {}  # of an annotation in instances; references can share one
        for reference, position in group:
            for annotation in reference.annotations:
                if annotation['id'] not in rows:
                    rows[annotation['id']] = len(rows)
                    item['instances'].append(_instance(annotation))
            exists = reference.exists is None or reference.exists[position]
            targets = [rows[one['id']] for one in reference.annotations] if exists else []
            item['expressions'].append(reference.expressions[position])
            item['sent_ids'].append(reference.sent_ids[position])
            item['ref_ids'].append(reference.ref_id)
            item['targets'].append(targets)
            item['num_targets'].append(len(targets))
            item['num_distractors'].append(reference.num_distractors if targets else -1)
        return item

    def _pool_of(self, items: Sequence[dict]) -> ImagePool:
        folder = osp.join(self.data_prefix['img_path'], '')
        names = {item['img_id']: item['img_path'].removeprefix(folder) for item in items}
        expressions = sorted(
            (sent_id, names[item['img_id']], expression)
            for item in items
            for sent_id, expression in zip(item['sent_ids'], item['expressions'])
        )
        # Banks on disk carry this digest: it must not change.
        digest = hashlib.sha256(repr((sorted(names.items()), expressions)).encode()).hexdigest()
        ids = sorted(names)
        return ImagePool(self.data_prefix['img_path'], ids, [names[i] for i in ids], digest)

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
        """List all expressions of the split by rising sentence id.

        Returns:
            Sentence ids ``(E,)`` int64, the E expressions, and the row ``(E,)`` int64 of each one's
            image in :attr:`pool`.
        """
        # Arrays of numbers: ten million expressions take little more than their characters.
        sent_ids, rows, expressions = array('q'), array('q'), []
        pool = self.pool
        for index in range(len(self)):
            item = self.get_data_info(index)
            sent_ids.extend(item['sent_ids'])
            expressions += item['expressions']
            rows.extend([pool.row_of(item['img_id'])] * len(item['expressions']))
        order = np.argsort(sent_ids, kind='stable')
        if (np.diff(np.asarray(sent_ids)[order]) == 0).any():
            # Equal ids: the order must not depend on the grouping.
            order = sorted(order, key=lambda i: (sent_ids[i], expressions[i], rows[i]))
        return (
            np.array(sent_ids, dtype=np.int64)[order],
            [expressions[i] for i in order],
            np.array(rows, dtype=np.int64)[order],
        )

    @collector_paused()
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep some items, in place. The pool stays that of all items.

        Args:
            indices: See the argument of the class.
        """
        items = [self.get_data_info(index) for index in range(len(self))]
        self.data_list = _with_siblings(_subset(items, indices))
        if self.serialize_data:
            self.data_bytes, self.data_address = self._serialize_data()

    def get_subset(self, indices: int | Sequence[int]) -> BaseReferringDataset:
        """Copy the data set with some items only, see :meth:`get_subset_`."""
        subset = copy.copy(self)
        subset.get_subset_(indices)
        return subset

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on one item under the sample's own random state.

        Args:
            idx: A :class:`SampleIndex`. A plain index counts as one of epoch 0 with seed 0.

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
            warnings.warn(
                'The sampler does not tell the epoch, so every epoch repeats the same samples. '
                'Train with ReferringSampler (epochs) or InfiniteReferringSampler (iterations).'
            )


def refuse_missing(names: set[str], folder: str, what: str) -> None:
    """Look for files of a split.

    Args:
        names: Their paths inside the folder.
        folder: Of any MMEngine file backend.
        what: What they are, for the message.

    Raises:
        FileNotFoundError: Some are missing; counts them and names the first.
    """
    present: set[str] = set()
    for inside in {posixpath.dirname(name) for name in names}:  # not the whole tree below
        part = osp.join(folder, inside) if inside else folder
        if exists(part):
            found = list_dir_or_file(part, list_dir=False)
            present.update(posixpath.join(inside, name) for name in found)
    missing = sorted(names - present)
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} {what} of the split are not in {folder}, the first: '
            f'{shown(missing[0]).removeprefix("the text ")}'
        )


def _grouped(references: Sequence[Reference], group_by: str) -> list[list[tuple[Reference, int]]]:
    """Group expressions, each a reference and a position in it, by the item they belong to."""
    groups: dict[Any, list[tuple[Reference, int]]] = {}
    for number, reference in enumerate(references):
        key = reference.image['id'] if group_by == 'image' else number
        for position in range(len(reference.expressions)):
            of_item = (number, position) if group_by == 'expression' else key
            groups.setdefault(of_item, []).append((reference, position))
    return list(groups.values())


def _instance(annotation: dict) -> dict:
    return dict(
        ann_id=int(annotation['id']),
        bbox=annotation.get('bbox'),
        segmentation=annotation['segmentation'],
        area=float(annotation.get('area', 0)),
        category_id=int(annotation['category_id']),
    )


def _subset(items: list[dict], indices: int | Sequence[int] | None) -> list[dict]:
    if indices is None:
        return items
    if isinstance(indices, int):
        return items[:indices] if indices >= 0 else items[indices:]
    return [items[index] for index in indices]


def _with_siblings(items: Sequence[dict]) -> list[dict]:
    """Note in each item where among them the other items of its image are."""
    of_image: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        of_image.setdefault(item['img_id'], []).append(index)
    return [
        dict(item, siblings=[other for other in of_image[item['img_id']] if other != index])
        for index, item in enumerate(items)
    ]
