"""Training on images and expressions of which a part is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_mmseg.models.utils.masking import (
    TokenVocabulary,
    hidden_patches,
    mask_images,
    mask_tokens,
    patch_grid,
)


@dataclass(frozen=True)
class MaskedTraining:
    """What ``train_cfg.masked`` of a network says; the defaults are the published values.

    In two passes, the network first learns the plain sample from its ground truth. Then it sees the
    sample with parts hidden, and learns to say the same as before. Lee et al., *MaskRIS: semantic
    distortion-aware data augmentation for referring image segmentation*, 2024.

    Noise comes from PyTorch's generators, as that of dropout. So with ``IterationSeedHook`` a
    resumed run draws what the unbroken one drew, and each rank draws its own.

    Args:
        patch_size: Height and width of an image's patches in pixels. Patches at the right and lower
            border are cut where the size of the images asks for it.
        image_ratio: Share of the patches that are hidden: set to 0 behind the data preprocessor,
            which is the mean colour. The share is of the whole input, with its padding.
        text_ratio: Share of the tokens that are drawn, each by itself; start, end and padding never
            are.
        text_shares: Of the drawn tokens, which share becomes the filler of the text encoder, and
            which a random id; the rest stays.
        clean_weight: Weight of the losses of the plain pass, lambda; the other pass has the rest.
        passes: 2 as above; 1 is plain augmentation: a single pass that learns from the masked
            sample and the ground truth, without ``clean_weight``.

    Raises:
        ValueError: A value is out of range; names it.
    """

    patch_size: int = 32
    image_ratio: float = 0.75
    text_ratio: float = 0.15
    text_shares: Sequence[float] = (0.8, 0.1)
    clean_weight: float = 0.5
    passes: int = 2

    def __post_init__(self) -> None:
        shares = self.text_shares
        allowed = {
            'patch_size': (type(self.patch_size) is int and self.patch_size >= 1, '1 or more'),
            **{
                name: (0 <= getattr(self, name) <= 1, '0 to 1')
                for name in ('image_ratio', 'text_ratio', 'clean_weight')
            },
            'text_shares': (
                isinstance(shares, Sequence)
                and len(shares) == 2
                and min(shares) >= 0
                and sum(shares) <= 1 + 1e-9,
                'two shares whose sum is at most 1',
            ),
            'passes': (self.passes in (1, 2), '1 or 2'),
        }
        for name, (right, what) in allowed.items():
            if not right:
                value = getattr(self, name)
                raise ValueError(f'train_cfg.masked: {name} must be {what}, not {value!r}')

    def mask_images(self, images: Tensor) -> Tensor:
        """Hide patches of images ``(B, 3, H, W)``, other ones in each."""
        rows, columns = patch_grid(images.shape[-2:], self.patch_size)
        noise = torch.rand(len(images), rows * columns, device=images.device)
        return mask_images(images, hidden_patches(noise, self.image_ratio), self.patch_size)

    def mask_tokens(self, ids: Tensor, mask: Tensor, vocabulary: TokenVocabulary) -> Tensor:
        """Hide tokens of expressions ``(E, T)``; ``mask`` is False on padding."""
        noise = torch.rand(ids.shape, device=ids.device)
        random_ids = torch.randint(vocabulary.size, ids.shape, device=ids.device)
        return mask_tokens(
            ids, mask, vocabulary, self.text_ratio, self.text_shares, noise, random_ids
        )

    def join(self, clean: dict[str, Tensor], masked: Tensor) -> dict[str, Tensor]:
        """Weigh the losses of both passes.

        Their gradients add up in one backward pass. So a step is the same under AMP, gradient
        accumulation and DDP as with any other losses.

        Args:
            clean: Losses of the plain pass, and values to be logged, whose names lack "loss".
            masked: Loss of the other pass, which becomes ``loss_masked``.
        """
        weight = self.clean_weight
        joined = {name: weight * x if 'loss' in name else x for name, x in clean.items()}
        return {**joined, 'loss_masked': (1 - weight) * masked}
