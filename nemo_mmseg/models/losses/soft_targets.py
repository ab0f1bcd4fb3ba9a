"""A loss against what a network itself said, in the place of a ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_target_loss(
    logits: Tensor,
    target_logits: Tensor,
    known: Tensor,
    class_weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """Compare logits with the probabilities of other logits; nothing flows back through these.

    Two channels: cross entropy with a softmax, each class times its weight. One channel: binary
    cross entropy with a sigmoid. Both are divided by the number of pixels, not by the sum of their
    weights, as MaskRIS publishes it (and PyTorch defines for targets that are probabilities).

    Args:
        logits: ``(E, C, h, w)``, C is 1 or 2.
        target_logits: The same shape.
        known: ``(E, h, w)`` bool, the pixels that count.
        class_weights: Weights of background and object, for C = 2.

    Returns:
        The loss, in float32 at least; 0 where no pixel is known.
    """
    kind = torch.promote_types(logits.dtype, torch.float32)
    logits, target = logits.to(kind), target_logits.detach().to(kind)
    if logits.shape[1] == 1:
        loss = F.binary_cross_entropy_with_logits(logits, target.sigmoid(), reduction='none')[:, 0]
    else:
        weight = class_weights
        if weight is not None:
            weight = torch.as_tensor(weight, dtype=kind, device=logits.device)
        loss = F.cross_entropy(logits, target.softmax(dim=1), weight, reduction='none')
    return (loss * known).sum() / known.sum().clamp(min=1)
