"""RefCOCO, RefCOCO+ and RefCOCOg."""

from __future__ import annotations

import os.path as osp
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmseg.registry import DATASETS

from nemo_mmseg.utils.parquet import in_root

from .base import BaseReferringDataset
from .clean_labels import add_clean_labels
from .refer import Layout, Reference, load_references


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
        gt_overlay: Folder, file or hub name of RefCOCO-M, whose masks are loaded beside those of
            ``ann_file``, for :class:`CleanReferringIoU`. Defaults to None.
        reviewed: JSON file, sentence id -> true or false: whether a reviewer found the expression
            right. It need not have all. Defaults to None.
        **kwargs: See :class:`BaseReferringDataset`.
    """

    # What the files may hold; the arguments say the rest.
    layout = Layout()

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        split_file: str,
        split: str,
        data_prefix: dict,
        text_key: str = 'sent',
        unlabelled: str = 'error',
        gt_overlay: str | None = None,
        reviewed: str | None = None,
        **kwargs: Any,
    ) -> None:
        if unlabelled not in ('error', 'leave_out'):
            raise ValueError(f"unlabelled must be 'error' or 'leave_out', not {unlabelled!r}")
        self.split = split
        self.split_file = self.locate(data_root, split_file)
        self.text_key = text_key
        self.unlabelled = unlabelled
        self.gt_overlay = gt_overlay and in_root(data_root, gt_overlay)
        self.reviewed = reviewed and osp.join(data_root, reviewed)
        super().__init__(
            data_root=data_root, ann_file=ann_file, data_prefix=dict(data_prefix), **kwargs
        )
        self._metainfo.setdefault('dataset_name', self.default_name)

    def load_reference_list(self, errors: list[str] | None = None) -> list[Reference]:
        """Read the split, and warn where a known data set has other counts than published."""
        leave_out = self.unlabelled == 'leave_out'
        layout = replace(self.layout, text_key=self.text_key, leave_out_unlabelled=leave_out)
        references = load_references(self.split_file, self.ann_file, self.split, layout, errors)
        self.compare_with_published(references, self.published_name)
        return references

    def load_data_list(self) -> list[dict]:
        """Make the items (called by MMEngine), with the clean labels of their expressions."""
        items = super().load_data_list()
        if self.gt_overlay or self.reviewed:
            add_clean_labels(items, self.gt_overlay, self.reviewed)
        return items

    def locate(self, data_root: str, split_file: str) -> str:
        """Return the path of the file of splits."""
        return osp.join(data_root, split_file)

    @property
    def default_name(self) -> str:
        """Name of the data set, if ``metainfo`` gives none."""
        return Path(self.split_file).parent.name

    @property
    def published_name(self) -> str:
        """Key of ``PUBLISHED_SPLITS``, if the split is one of them."""
        return '/'.join(Path(self.split_file).with_suffix('').parts[-2:])
