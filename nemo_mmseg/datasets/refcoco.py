"""RefCOCO, RefCOCO+ and RefCOCOg."""

from __future__ import annotations

import os.path as osp
import warnings
from pathlib import Path
from typing import Any

from mmseg.registry import DATASETS

from .base import BaseReferringDataset
from .refer import Reference, load_references

# Folder and name of the split file -> split -> number of references, as published.
PUBLISHED_REFERENCES = {
    'refcoco/refs(unc)': dict(train=42404, val=3811, testA=1975, testB=1810),
    'refcoco+/refs(unc)': dict(train=42278, val=3805, testA=1975, testB=1798),
    'refcocog/refs(umd)': dict(train=42226, val=2573, test=5023),
    'refcocog/refs(google)': dict(train=44822, val=5000),
}


@DATASETS.register_module()
class RefCOCODataset(BaseReferringDataset):
    """RefCOCO, RefCOCO+ and RefCOCOg, and any data set laid out like them.

    Kazemzadeh et al., *ReferItGame*, EMNLP 2014; Yu et al., *Modeling Context in Referring
    Expressions*, ECCV 2016; Mao et al., *Generation and Comprehension of Unambiguous Object
    Descriptions*, CVPR 2016.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: ``instances.json``, e.g. ``'refcoco/instances.json'``.
        split_file: References, e.g. ``'refcoco/refs(unc).p'``.
        split: ``'train'``, ``'val'``, ``'testA'``, ``'testB'`` or ``'test'``.
        data_prefix: ``dict(img_path=...)``, the folder of the images (COCO's ``train2014``).
        text_key: ``'sent'`` (cleaned, lower case; CRIS) or ``'raw'`` (as typed; LAVT). Defaults to
            ``'sent'``.
        unlabelled: What is done with references that have no annotation in ``ann_file``, as pseudo
            masks can lack some: ``'error'`` names and counts them, ``'leave_out'`` also leaves
            them out. Defaults to ``'error'``.
        **kwargs: See :class:`BaseReferringDataset`.
    """

    # Whether an expression can have several targets, or none.
    generalized = False

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        split_file: str,
        split: str,
        data_prefix: dict,
        text_key: str = 'sent',
        unlabelled: str = 'error',
        **kwargs: Any,
    ) -> None:
        if unlabelled not in ('error', 'leave_out'):
            raise ValueError(f"unlabelled must be 'error' or 'leave_out', not {unlabelled!r}")
        self.split = split
        self.split_file = split_file if osp.isabs(split_file) else osp.join(data_root, split_file)
        self.text_key = text_key
        self.unlabelled = unlabelled
        super().__init__(
            data_root=data_root, ann_file=ann_file, data_prefix=dict(data_prefix), **kwargs
        )
        self._metainfo.setdefault('dataset_name', Path(self.split_file).parent.name)

    def load_reference_list(self, errors: list[str] | None = None) -> list[Reference]:
        """Read the split, and warn where a known data set has other counts than published."""
        references = load_references(
            self.split_file,
            self.ann_file,
            self.split,
            self.text_key,
            errors,
            self.generalized,
            self.unlabelled == 'leave_out',
        )
        self._compare_counts(len(references), 'references', PUBLISHED_REFERENCES)
        return references

    def _compare_counts(self, count: int, what: str, published: dict[str, dict[str, int]]) -> None:
        name = '/'.join(Path(self.split_file).with_suffix('').parts[-2:])
        expected = published.get(name, {}).get(self.split, count)
        if count != expected:
            warnings.warn(
                f'{self.split_file}, split {self.split}: {count} {what}, but {expected} were '
                'published'
            )
