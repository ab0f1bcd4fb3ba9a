"""ReLA's head: a hundred regions make the mask, or say that there is nothing to find."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.losses.targets import gt_like, no_target_of, training_iou
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.layers import mlp
from nemo_mmseg.models.utils.positions import relative_sine_position_2d

from .rela_layers import RegionLayer

MINIMAP_SIZE = 10  # height and width; the square of it is the number of regions
LOSS_WEIGHTS = 5.0, 0.5, 0.5  # of mask, minimap and no-target output
CLASS_WEIGHT = 0.9, 1.1  # of background and object, and of "target" and "no target"


@MODELS.register_module()
class ReLAHead(BaseModule):
    """Head whose regions look at pixels and words; each then says how much it belongs to the mask.

    A region has a kernel, which makes a map of its own, and two numbers (background, object) that
    weigh the kernels of all regions into the mask's two channels. These numbers, laid out as a
    square, are the *minimap*, which is trained to be a small copy of the mask. All regions together
    say whether there is a target at all.

    Liu et al., *GRES: generalized referring expression segmentation*, 2023. Of the paper's
    region-language attention in every layer the published code has the first layer's alone.

    Args:
        channels: Channels of the four maps that come in; a multiple of four.
        word_channels: Size of a word feature.
        num_layers: Layers of the decoder. They look at the maps of stride 32, 16, 8, 32 ...
        num_heads: Attention heads of a layer.
        feedforward_channels: Hidden size of a layer.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        channels: int = 256,
        word_channels: int = 768,
        num_layers: int = 9,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.register_buffer('class_weight', torch.tensor(CLASS_WEIGHT), persistent=False)
        self.query_feat = nn.Embedding(MINIMAP_SIZE**2, channels)
        self.query_embed = nn.Embedding(MINIMAP_SIZE**2, channels)
        self.level_embed = nn.Embedding(3, channels)
        self.layers = nn.ModuleList(
            RegionLayer(channels, num_heads, feedforward_channels, None if i else word_channels)
            for i in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.mask_embed = mlp(channels, channels, channels, channels)
        self.minimap_embed = nn.Linear(channels, 2)
        self.no_target_embed = mlp(channels, channels, 2)

    @property
    def class_weights(self) -> Tensor:
        """Weights of background and object in the loss of the mask, times its own weight."""
        return LOSS_WEIGHTS[0] * self.class_weight

    def forward(self, feats: Sequence[Tensor], text: TextFeatures) -> HeadOutput:
        """Find what the expressions describe.

        Args:
            feats: Maps ``(B, C, h, w)`` of stride 4, 8, 16 and 32, or ``(E, ...)`` with
                ``text.image_index`` 0 to E - 1.
            text: The expressions.

        Returns:
            Logits ``(E, 2, h, w)`` of stride 4, ``no_target``, and in ``extras`` the ``minimap``
            ``(E, 2, S, S)`` and ``no_target_logits`` ``(E, 2)`` (target, no target).
        """
        finest, *levels = [text.rows(feat) for feat in feats]
        levels = [self._level(*pair) for pair in zip(reversed(levels), self.level_embed.weight)]
        regions = self.query_feat.weight.expand(text.words.shape[0], -1, -1)
        for i, layer in enumerate(self.layers):
            pixels, position, size = levels[i % len(levels)]
            forbidden = self.forbidden(regions, finest, size)
            regions = layer(
                regions, self.query_embed.weight, pixels, position, forbidden, text.words
            )
        regions = self.norm(regions)
        minimap = self.minimap_embed(regions).transpose(1, 2)
        logits = torch.einsum('ekc,echw->ekhw', minimap @ self.mask_embed(regions), finest)
        no_target = self.no_target_embed(regions).mean(dim=1)
        extras = dict(minimap=minimap.unflatten(2, (MINIMAP_SIZE, -1)), no_target_logits=no_target)
        return HeadOutput(logits, no_target[:, 1] - no_target[:, 0], extras)

    def _level(self, feat: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return pixels ``(E, N, C)``, their position code ``(N, C)``, height and width."""
        size = tuple(feat.shape[-2:])
        pixels = feat.flatten(2).transpose(1, 2) + embedding
        position = relative_sine_position_2d(*size, feat.shape[1] // 2, feat.device)
        return pixels, position.flatten(1).T.to(pixels.dtype), size

    @torch.no_grad()
    def forbidden(self, regions: Tensor, finest: Tensor, size: tuple[int, int]) -> Tensor:
        """Tell where the regions must not look: where their own masks do not lie.

        Args:
            regions: ``(E, R, C)``, before the norm.
            finest: Map ``(E, C, h, w)``.
            size: Height and width of the level.

        Returns:
            ``(E, R, N)`` bool.
        """
        kernels = self.mask_embed(self.norm(regions))
        masks = torch.einsum('erc,echw->erhw', kernels, finest)
        masks = F.interpolate(masks, size, mode='bilinear', align_corners=False)
        return masks.flatten(2).sigmoid() < 0.5

    def loss(
        self, output: HeadOutput, text: TextFeatures, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compute the losses of mask (at the size of the ground truth), minimap and no-target.

        All are cross entropies of two classes, each a weighted mean. A no-target expression has an
        empty mask and takes part in all three.

        Returns:
            The losses, and ``train_iou``: mean IoU in per cent over the expressions of the batch.
        """
        size = data_samples[0].gt_sem_seg.data.shape[-2:]
        logits = output.logits.float()
        logits = F.interpolate(logits, size, mode='bilinear', align_corners=False)
        gt = gt_like(logits, data_samples)
        pairs = dict(
            loss_mask=(logits, gt),
            loss_minimap=(output.extras['minimap'].float(), minimap_of(gt, MINIMAP_SIZE)),
            loss_no_target=(
                output.extras['no_target_logits'].float(),
                no_target_of(data_samples).long().to(gt.device),
            ),
        )
        losses = {
            name: share * F.cross_entropy(*pair, self.class_weight.float(), ignore_index=255)
            for (name, pair), share in zip(pairs.items(), LOSS_WEIGHTS, strict=True)
        }
        return {**losses, 'train_iou': training_iou(logits[:, 1] > logits[:, 0], gt)}


def minimap_of(gt: Tensor, size: int) -> Tensor:
    """Make the small copy of a mask that the minimap is compared with.

    As published, the mask is sampled bilinearly and cut to whole numbers. So a cell is foreground
    only if the four pixels around its centre are.

    Args:
        gt: ``(E, H, W)``, 0, 1 or 255 = ignore.
        size: Height and width of the minimap.

    Returns:
        ``(E, size, size)`` long; 255 where any of the four pixels is to be ignored.
    """
    parts = torch.stack((gt == 1, gt == 255), dim=1).float()
    parts = F.interpolate(parts, (size, size), mode='bilinear', align_corners=False)
    foreground, ignored = parts.unbind(dim=1)
    return foreground.long().masked_fill(ignored > 0, 255)
