"""What a text encoder hands to backbone, neck and head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class TextFeatures:
    """Features of E expressions and the images they belong to.

    Args:
        words: Word features (E, T, Cw).
        mask: (E, T) bool, True on real tokens.
        sentence: One vector per expression (E, Cs), or None where the encoder has none.
        image_index: (E,) long, the row of the image that each expression belongs to.
        one_to_one: True if ``image_index`` is 0, 1, ..., E - 1, so that no row has to be copied.
            Kept beside the tensor because asking a tensor on a GPU would make the host wait.
    """

    words: Tensor
    mask: Tensor
    sentence: Tensor | None
    image_index: Tensor
    one_to_one: bool = False

    def __len__(self) -> int:
        return self.words.shape[0]

    def rows(self, x: Tensor) -> Tensor:
        """Features of the image of each expression: (B, ...) -> (E, ...)."""
        return x if self.one_to_one else x.index_select(0, self.image_index)

    def per_expression(self) -> TextFeatures:
        """The same text for features that already have one row per expression."""
        index = torch.arange(len(self), device=self.image_index.device)
        return replace(self, image_index=index, one_to_one=True)

    def of_images(self, counts: list[int]) -> TextFeatures:
        """The same text, its first ``counts[0]`` expressions belonging to image 0, and so on.

        Args:
            counts: Number of expressions of each image; their sum is E.
        """
        if sum(counts) != len(self):
            raise ValueError(f'{len(self)} expressions, but the images are said to have {counts}')
        index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))
        one_to_one = all(count == 1 for count in counts)
        return replace(
            self, image_index=index.to(self.words.device, non_blocking=True), one_to_one=one_to_one
        )
