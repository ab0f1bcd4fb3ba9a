"""The three contrastive losses; the tool's first lines say what they are."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from nemo_mmseg.utils.precision import bfloat16_is_slow

from .network import MEAN, STD, encode_image, encode_text


def contrast(similarity: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Contrastive loss of logits (B images, true sentences followed by changed ones)."""
    true = len(owner)
    columns = torch.arange(true)
    to_image = F.cross_entropy(similarity[:, :true].t(), owner)
    own = torch.zeros_like(similarity, dtype=torch.bool)
    own[owner, columns] = True
    rejected = similarity.masked_fill(own, float('-inf')).logsumexp(1)
    to_text = F.softplus(rejected[owner] - similarity[owner, columns]).mean()
    # Each true sentence against its own changed copy.
    pairs = F.softplus(similarity[owner, columns + true] - similarity[owner, columns]).mean()
    return to_image + to_text + pairs


def best_position(dense: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Logits (B, S) of the best position (smoothly) of each image for each sentence."""
    similarity = torch.einsum('bpc,sc->bsp', dense, text) * scale
    return similarity.logsumexp(-1) - float(np.log(dense.shape[1])) * 0.5


def losses_of(model, aux, scales, batch) -> list[torch.Tensor]:
    """The three contrastive losses of a batch."""
    images, tokens, owner = batch
    images = ((images.float() - MEAN) / STD) * (1 + 0.1 * torch.randn(len(images), 1, 1, 1))
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16, enabled=not bfloat16_is_slow()):
        pooled, dense, local = encode_image(model, aux, images)
        text = encode_text(model, tokens)
    scale = scales.exp()
    # Layer 3 has many positions: half of the images will do.
    half = len(images) // 2
    true = owner < half
    some = text[torch.cat([true, true])]
    return [
        contrast(model.logit_scale.exp() * pooled @ text.t(), owner),
        contrast(best_position(dense, text, scale[0]), owner),
        contrast(best_position(local[:half], some, scale[1]), owner[true]),
    ]
