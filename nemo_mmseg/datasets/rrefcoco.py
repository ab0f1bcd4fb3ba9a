"""R-RefCOCO, R-RefCOCO+ and R-RefCOCOg: some expressions are false of the image."""

from __future__ import annotations

from mmseg.registry import DATASETS

from .refcoco import RefCOCODataset
from .refer import Layout


@DATASETS.register_module()
class RRefCOCODataset(RefCOCODataset):
    """R-RefCOCO, R-RefCOCO+ and R-RefCOCOg, and any data set laid out like them.

    RefCOCO's files, where a reference also has expressions that are false of the image: their
    ``exist`` is false. Such an expression has no target: its mask is empty, ``num_targets`` is 0
    and ``num_distractors`` -1. An expression without ``exist`` is true. As published, training
    draws one of all expressions of a reference.

    Wu et al., *Towards Robust Referring Image Segmentation*, IEEE TIP 2024.

    The arguments are those of :class:`RefCOCODataset`; ``split_file`` is, e.g.,
    ``'rrefcoco/refs(unc).p'``. :class:`RobustReferringIoU` is the metric.
    """

    layout = Layout(existence=True)
