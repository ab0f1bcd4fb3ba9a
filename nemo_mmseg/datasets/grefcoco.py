"""gRefCOCO: expressions that describe several objects, or nothing in their image."""

from __future__ import annotations

import os.path as osp

from mmseg.registry import DATASETS

from .refcoco import RefCOCODataset
from .refer import Reference, load_references

# Split -> number of expressions, as published in ``grefs(unc).json``: 259,859 in all. (The paper's
# 278,232 include some that the authors hold back.)
PUBLISHED_EXPRESSIONS = dict(train=209344, val=16870, testA=18712, testB=14933)


@DATASETS.register_module()
class GRefCOCODataset(RefCOCODataset):
    """gRefCOCO, and any data set laid out like it: each expression has any number of targets.

    A reference names a list of annotations, ``[-1]`` for none. The mask of an expression is the
    union of its targets' masks, empty where it has none; ``num_targets`` of an item says how many
    there are. A crowd is no target beside others (published), and alone it is one (as in RefCOCO).
    What describes nothing has ``num_distractors`` -1: unknown.

    Liu et al., *GRES: Generalized Referring Expression Segmentation*, CVPR 2023.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: ``instances.json``, e.g. ``'grefcoco/instances.json'``.
        split_file: References, e.g. ``'grefcoco/grefs(unc).json'``. A pickle in its place is read
            as :class:`RefCOCODataset` reads one.
        split: ``'train'``, ``'val'``, ``'testA'`` or ``'testB'``.
        data_prefix: ``dict(img_path=...)``, the folder of the images (COCO's ``train2014``).
        text_key: ``'sent'`` or ``'raw'`` (ReLA). Defaults to ``'sent'``.
        **kwargs: See :class:`BaseReferringDataset`.

    Raises:
        FileNotFoundError: A file or an image is missing.
        ValueError: A file is damaged, the split is unknown, a reference lacks its image or one of
            its annotations, an expression is empty, or a segmentation is.
    """

    def load_reference_list(self, faults: list[str] | None = None) -> list[Reference]:
        """Read the split, and warn where gRefCOCO has other counts than published."""
        references = load_references(
            self.split_file, self.ann_file, self.split, self.text_key, faults, generalized=True
        )
        folder, file = osp.split(self.split_file)
        number = sum(len(reference.expressions) for reference in references)
        if (osp.basename(folder), osp.splitext(file)[0]) == ('grefcoco', 'grefs(unc)'):
            expected = PUBLISHED_EXPRESSIONS.get(self.split, number)
            if expected != number:
                self._remark(
                    f'{self.split_file}, split {self.split}: {number} expressions, but {expected} '
                    'were published',
                    warning=True,
                )
        return references
