"""IRN's losses of edges and displacements, from labels of which only some are certain."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from .pixel_paths import affinity, common_region, pixel_paths

# Added to affinities before their logarithm, and to counts of pairs before dividing by them.
EPSILON = 1e-5


@MODELS.register_module()
class AffinityDisplacementLoss(nn.Module):
    """Losses of pairs of neighbouring pixels.

    Ahn, Cho and Kwak, *Weakly Supervised Learning of Instance Segmentation with Inter-pixel
    Relations*, CVPR 2019. Pixels of one label shall have no edge between them, pixels of two labels
    one. Two pixels of an object shall point to the same place; background shall not point anywhere.

    Args:
        radius: Pixels of a pair are nearer than this, in cells of the map. Defaults to 10.
    """

    def __init__(self, radius: int = 10) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, edge_logits: Tensor, displacement: Tensor, labels: Tensor) -> dict:
        """Compute the four losses; their sum is what is minimised.

        Args:
            edge_logits: ``(B, 1, H, W)``.
            displacement: ``(B, 2, H, W)``, rows and columns, in cells.
            labels: ``(B, H, W)`` uint8: 0 background, 1 object, 255 unknown.

        Returns:
            Scalars ``loss_positive_affinity``, ``loss_negative_affinity``,
            ``loss_object_displacement`` and ``loss_background_displacement``.
        """
        paths = pixel_paths(self.radius)
        region = common_region(self.radius, *labels.shape[-2:])
        edge = edge_logits[:, 0].sigmoid()
        affinities = torch.stack([affinity(edge, path, region) for path in paths], 1)

        start = region.of(labels)[:, None]
        end = torch.stack([region.of(labels, path.end) for path in paths], 1)
        known = (start != 255) & (end != 255)
        same, different = known & (start == end), known & (start != end)
        background, foreground = same & (start == 0), same & (start > 0)

        attract = -(affinities + EPSILON).log()
        repel = -(1 + EPSILON - affinities).log()
        positive = (_mean(attract, background) + _mean(attract, foreground)) / 2

        moved = torch.stack(
            [region.of(displacement) - region.of(displacement, path.end) for path in paths], 2
        )
        target = moved.new_tensor([path.end for path in paths]).T[None, :, :, None, None]
        return dict(
            loss_positive_affinity=positive / 2,
            loss_negative_affinity=_mean(repel, different) / 2,
            loss_object_displacement=_mean((moved - target).abs(), foreground[:, None]) / 2,
            loss_background_displacement=_mean(moved.abs(), background[:, None]) / 2,
        )


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Average the chosen values; ``chosen`` may have an axis of length 1."""
    repeats = values.numel() // chosen.numel()
    return (values * chosen).sum() / (repeats * chosen.sum() + EPSILON)
