"""Test protocols: how logits become masks, as publications did it.

A protocol is ``protocol(logits, sample, input_shape, **options)``: it takes the logits (N, C, h, w)
of the N expressions of one sample, reads the geometry of the image from the sample's metainfo and
stores ``pred_sem_seg``, ``seg_logits`` and, where the publication changed the truth as well,
``gt_sem_seg``. The metric only counts.
"""

from .cris import cris
from .lavt import lavt
from .original import original

PROTOCOLS = {'original': original, 'cris': cris, 'lavt': lavt}

__all__ = ['PROTOCOLS', 'cris', 'lavt', 'original']
