"""Ref-ZOM: expressions of zero, one or many objects."""

from __future__ import annotations

from mmseg.registry import DATASETS

from .grefcoco import GRefCOCODataset
from .refer import Layout


@DATASETS.register_module()
class RefZOMDataset(GRefCOCODataset):
    """Ref-ZOM, and any data set laid out like it: an expression has any number of targets.

    As gRefCOCO, but ``source`` of a reference says ``'zero'`` if it has no target, and its
    annotations are then not looked at. The images are those of COCO's train2014 and val2014, in one
    folder. One difference to the published reader: a crowd beside other targets is left out, as in
    gRefCOCO.

    Hu et al., *Beyond One-to-One: Rethinking the Referring Image Segmentation*, ICCV 2023.

    The arguments are those of :class:`RefCOCODataset`; ``split_file`` is
    ``'ref-zom/refs(final).p'``. :class:`RefZOMIoU` is the metric.
    """

    layout = Layout(generalized=True, zero_by_source=True)
