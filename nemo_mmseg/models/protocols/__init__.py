"""Test protocols: how logits become masks, as publications did it.

A protocol is a module in ``TASK_UTILS``, built from ``test_cfg.protocol``. It is called as
``protocol(output, image, sample)``:

- ``output`` (:class:`~nemo_mmseg.models.structures.HeadOutput`): of the N expressions of one
  sample, in float32 or float64
- ``image`` (Tensor): the normalised input ``(3, H, W)`` of the sample
- ``sample`` (SegDataSample): its metainfo has the geometry of the image

It stores ``pred_sem_seg``, ``seg_logits`` and, where the publication changed the ground truth as
well, ``gt_sem_seg``. The metric only counts. A protocol that needs a network of its own holds a
:class:`~nemo_mmseg.models.utils.frozen.FrozenModule`.
"""

from nemo_mmseg.utils.modules import import_modules

import_modules(__name__, __path__)
