"""gRefCOCO: expressions of one target, of several, or of none."""

from __future__ import annotations

from mmseg.registry import DATASETS

from .refcoco import RefCOCODataset
from .refer import Layout


@DATASETS.register_module()
class GRefCOCODataset(RefCOCODataset):
    """gRefCOCO, and any data set laid out like it: an expression has any number of targets.

    A reference lists its annotations, ``[-1]`` for none. The mask of an expression is the union of
    its targets' masks, and empty for a no-target expression. ``num_targets`` counts the targets. A
    crowd beside other targets is left out, as published; alone it is a target, as in RefCOCO.
    ``num_distractors`` of a no-target expression is -1: unknown.

    Liu et al., *GRES: Generalized Referring Expression Segmentation*, CVPR 2023.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: ``instances.json``, e.g. ``'grefcoco/instances.json'``.
        split_file: References, e.g. ``'grefcoco/grefs(unc).json'``, or a pickle of the same.
        split: ``'train'``, ``'val'``, ``'testA'`` or ``'testB'``.
        data_prefix: ``dict(img_path=...)``, the folder of the images (COCO's ``train2014``).
        text_key: ``'sent'`` or ``'raw'`` (ReLA). Defaults to ``'sent'``.
        **kwargs: See :class:`BaseReferringDataset`.
    """

    layout = Layout(generalized=True)
