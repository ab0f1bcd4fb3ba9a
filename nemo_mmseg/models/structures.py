"""What the parts of a network hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor


@dataclass
class TextFeatures:
    """Features of E expressions and the images they belong to.

    Args:
        words: Word features ``(E, T, Cw)``.
        mask: ``(E, T)`` bool, True on real tokens.
        sentence: One vector per expression ``(E, Cs)``, or None where the encoder has none.
        image_index: ``(E,)`` long, the row of the image that each expression belongs to.
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
        """Return the features of the image of each expression: ``(B, ...)`` -> ``(E, ...)``."""
        return x if self.one_to_one else x.index_select(0, self.image_index)

    def per_expression(self) -> TextFeatures:
        """Return the same text for features that already have one row per expression."""
        # No len(), which would fix the number of rows in an exported graph.
        index = torch.arange(self.words.shape[0], device=self.image_index.device)
        return replace(self, image_index=index, one_to_one=True)

    def of_images(self, counts: Sequence[int]) -> TextFeatures:
        """Return the same text, its first ``counts[0]`` expressions of image 0, and so on.

        Args:
            counts: Number of expressions of each image; their sum is E.
        """
        index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))
        one_to_one = all(count == 1 for count in counts)
        return replace(
            self, image_index=index.to(self.words.device, non_blocking=True), one_to_one=one_to_one
        )


@dataclass
class HeadOutput:
    """Output of a head for E expressions.

    Args:
        logits: ``(E, C, h, w)``. C is 1 (sigmoid) or 2 (background, foreground).
        no_target: ``(E,)`` differences of logits, above 0 where the head says that the image shows
            nothing like this; None where it has no such output.
        extras: What a loss or a protocol of the method needs besides, by name. Every tensor has
            one row per expression, ``(E, ...)``. The other sizes are the same for every chunk of a
            batch: ``(E, B)``, for every image of it, needs ``takes_all_images = True`` of the head.
    """

    logits: Tensor
    no_target: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)

    def apply(self, change: Callable[[Tensor], Tensor]) -> HeadOutput:
        """Return the same output with every tensor changed by a function."""
        no_target = None if self.no_target is None else change(self.no_target)
        extras = {name: change(tensor) for name, tensor in self.extras.items()}
        return HeadOutput(change(self.logits), no_target, extras)

    def split(self, counts: Sequence[int]) -> list[HeadOutput]:
        """Cut into groups of expressions.

        Args:
            counts: Number of expressions of each group; their sum is E.
        """
        stops = list(accumulate(counts))
        ranges = [slice(stop - count, stop) for count, stop in zip(counts, stops)]
        return [self.apply(lambda x, rows=rows: x[rows]) for rows in ranges]

    @staticmethod
    def cat(outputs: Sequence[HeadOutput]) -> HeadOutput:
        """Join the outputs for several groups of expressions."""
        first = outputs[0]
        no_target = first.no_target
        if no_target is not None:
            no_target = torch.cat([output.no_target for output in outputs])
        extras = {name: torch.cat([o.extras[name] for o in outputs]) for name in first.extras}
        return HeadOutput(torch.cat([output.logits for output in outputs]), no_target, extras)
