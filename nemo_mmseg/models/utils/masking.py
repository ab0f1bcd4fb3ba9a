"""Hide patches of images and tokens of expressions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenVocabulary:
    """What the masking of tokens must know of a vocabulary.

    Args:
        filler: Id that takes the place of a masked token.
        special: Ids that are never masked.
        size: Ids below it may take the place of a token at random.
    """

    filler: int
    special: Sequence[int]
    size: int


def hidden_patches(noise: Tensor, ratio: float) -> Tensor:
    """Choose the patches to hide: of each image those with the largest noise.

    Of L patches ``int(L * (1 - ratio))`` stay, computed with floats as MaskRIS does: of 100 patches
    a ratio of 0.9 keeps 9.

    Args:
        noise: ``(B, L)``, one number for each patch.
        ratio: Share of the patches to hide.

    Returns:
        ``(B, L)`` bool.
    """
    kept = int(noise.shape[1] * (1 - ratio))
    return noise.argsort(dim=1).argsort(dim=1) >= kept


def patch_grid(size: Sequence[int], patch_size: int) -> tuple[int, int]:
    """Return the rows and columns of patches that cover an image of a height and width."""
    return tuple(math.ceil(side / patch_size) for side in size)


def mask_images(images: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """Set hidden patches to 0.

    Args:
        images: ``(B, 3, H, W)``.
        hidden: ``(B, L)`` bool, the patches of :func:`patch_grid` row by row. Where the patch does
            not divide the image, those of the last row or column are cut.
        patch_size: Height and width of a patch.

    Returns:
        New images, equal to the old ones elsewhere.
    """
    height, width = images.shape[-2:]
    hidden = hidden.unflatten(1, patch_grid((height, width), patch_size))
    pixels = hidden.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)
    return images.masked_fill(pixels[:, None, :height, :width], 0)


def mask_tokens(
    ids: Tensor,
    mask: Tensor,
    vocabulary: TokenVocabulary,
    ratio: float,
    shares: Sequence[float],
    noise: Tensor,
    random_ids: Tensor,
) -> Tensor:
    """Replace tokens, as BERT was trained, each drawn by itself.

    One number decides on a token. Below ``ratio`` the token is drawn; its place in [0, ratio) then
    says what becomes of it.

    Args:
        ids: ``(E, T)``.
        mask: ``(E, T)`` bool, False on padding, which stays.
        vocabulary: Knows which ids stay, too.
        ratio: Share of the tokens that are drawn.
        shares: Of the drawn tokens, which share becomes the filler, and which a random id. The rest
            stays.
        noise: ``(E, T)``, uniform in [0, 1).
        random_ids: ``(E, T)``, the ids that take a token's place at random.

    Returns:
        New ids ``(E, T)``.
    """
    filled, by_random = shares
    special = torch.tensor(vocabulary.special, device=ids.device)
    drawn = (noise < ratio) & mask & ~torch.isin(ids, special)
    place = noise / max(ratio, torch.finfo(noise.dtype).tiny)
    ids = torch.where(drawn & (place < filled + by_random), random_ids, ids)
    return ids.masked_fill(drawn & (place < filled), vocabulary.filler)
