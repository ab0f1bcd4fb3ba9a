"""RefCOCO, RefCOCO+ and RefCOCOg."""

from __future__ import annotations

import os.path as osp
import re
from typing import Any

from mmseg.registry import DATASETS

from .base import BaseReferringDataset
from .refer import PUBLISHED_SPLITS, Reference, load_references


@DATASETS.register_module()
class RefCOCODataset(BaseReferringDataset):
    """RefCOCO, RefCOCO+ and RefCOCOg, and any data set laid out like them.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: ``instances.json``, e.g. ``'refcoco/instances.json'``.
        split_file: References, e.g. ``'refcoco/refs(unc).p'``.
        split: ``'train'``, ``'val'``, ``'testA'``, ``'testB'`` or ``'test'``.
        data_prefix: ``dict(img_path=...)``, the folder of the images (COCO's ``train2014``).
        text_key: ``'sent'`` (cleaned, lower case; CRIS) or ``'raw'`` (as typed; LAVT). Defaults to
            ``'sent'``.
        **kwargs: See :class:`BaseReferringDataset`.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        split_file: str,
        split: str,
        data_prefix: dict,
        text_key: str = 'sent',
        **kwargs: Any,
    ) -> None:
        self.split = split
        self.split_file = split_file if osp.isabs(split_file) else osp.join(data_root, split_file)
        self.text_key = text_key
        super().__init__(
            data_root=data_root, ann_file=ann_file, data_prefix=dict(data_prefix), **kwargs
        )
        name = osp.basename(osp.dirname(self.split_file))
        self._metainfo.setdefault('dataset_name', name)

    def annotation_files(self) -> tuple[list[str], dict] | None:
        """See :meth:`BaseReferringDataset.annotation_files`; None for sub-classes of others."""
        if not type(self).__module__.startswith('nemo_mmseg.'):
            return None
        files = [self.split_file, self.ann_file]
        if self.leak_guard is not None:
            guard = dict(self.leak_guard)
            held_out = guard.get('split_files') or ()
            files += [osp.join(guard.get('data_root', ''), file) for file in held_out]
        return files, dict(split=self.split, text_key=self.text_key)

    def load_reference_list(self, faults: list[str] | None = None) -> list[Reference]:
        """Read the split, and warn where a published data set has other counts than published."""
        references = load_references(
            self.split_file, self.ann_file, self.split, self.text_key, faults
        )
        folder, file = osp.split(self.split_file)
        maker = re.fullmatch(r'refs\((.*)\)\.p', file)
        published = PUBLISHED_SPLITS.get((osp.basename(folder), maker[1] if maker else ''), {})
        expected = published.get(self.split)
        if expected is not None and expected != len(references):
            self._remark(
                f'{self.split_file}, split {self.split}: {len(references)} references, '
                f'but {expected} were published',
                warning=True,
            )
        return references
