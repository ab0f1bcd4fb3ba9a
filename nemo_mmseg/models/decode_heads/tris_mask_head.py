"""TRIS's second stage: a network that learns from the masks made of response maps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.backbones.pixel_word_attention import PixelWordAttention
from nemo_mmseg.models.losses.targets import gt_like, training_iou
from nemo_mmseg.models.structures import HeadOutput, TextFeatures


@MODELS.register_module()
class TRISMaskHead(BaseModule):
    """Head that adds to three of four maps the words they are about and joins all from the top.

    Each of the four joined maps has an output of its own, which learns the same mask; tested is the
    finest. Padding is not masked: pixels attend to it as to words. Liu et al., *Referring image
    segmentation using text supervision*, 2023.

    Args:
        in_channels: Channels of the four maps, finest first.
        word_channels: Size of a word feature.
        channels: Channels to which the four maps are reduced; each twice the one before.
        side_channels: Channels of the four outputs.
        loss_decode: MMSegmentation's loss for logits ``(E, 1, H, W)`` and labels ``(E, H, W)``.
            Defaults to binary cross entropy.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        word_channels: int = 512,
        channels: Sequence[int] = (64, 128, 256, 512),
        side_channels: Sequence[int] = (32, 32, 64, 64),
        loss_decode: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.fusions = nn.ModuleList(
            PixelWordAttention(c, word_channels, affine=True, activation=F.relu)
            for c in in_channels[1:]
        )
        self.reductions = nn.ModuleList(map(conv_bn_prelu, in_channels, channels))
        joined = channels[0] // 2, *channels[:-1]
        self.steps = nn.ModuleList(map(conv_bn_prelu, channels, joined))
        self.outputs = nn.ModuleList(
            nn.Sequential(conv_bn_prelu(c, side), nn.Conv2d(side, 1, 1, bias=False))
            for c, side in zip(joined, side_channels)
        )
        if loss_decode is None:
            loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)
        self.loss_decode = MODELS.build(loss_decode)

    def forward(self, feats: Sequence[Tensor], text: TextFeatures) -> HeadOutput:
        """Join maps and words.

        Args:
            feats: Four maps of the B images, finest first.
            text: E expressions.

        Returns:
            Logits ``(E, 1, h, w)`` at the size of the finest map. In training, ``extras`` has those
            of the coarser outputs: ``side1``, ``side2`` and ``side3``.
        """
        x, maps = 0.0, self._reduced(feats, text)
        joined = [maps[0]] * 4
        for i in (3, 2, 1):
            x = self.steps[i](maps[i] + x)
            x = F.interpolate(x, maps[i - 1].shape[-2:], mode='bilinear', align_corners=False)
            joined[i] = x
        logits = self.outputs[0](self.steps[0](maps[0] + x))
        sides = {f'side{i}': self.outputs[i](joined[i]) for i in (1, 2, 3) if self.training}
        return HeadOutput(logits, extras=sides)

    def _reduced(self, feats: Sequence[Tensor], text: TextFeatures) -> list[Tensor]:
        """Fuse all maps but the finest with the words, and reduce the channels of all."""
        maps = [text.rows(self.reductions[0](feats[0]))]
        for fusion, reduction, feat in zip(self.fusions, self.reductions[1:], feats[1:]):
            feat = text.rows(feat)
            pixels = fusion(feat.flatten(2).transpose(1, 2), text.words, mask=None)
            maps.append(reduction(feat + pixels.transpose(1, 2).unflatten(2, feat.shape[-2:])))
        return maps

    def loss(
        self, output: HeadOutput, text: TextFeatures, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compute the losses of all four outputs at the size of the ground truth.

        Returns:
            The losses, of equal weight, and ``train_iou``: mean IoU in per cent over the
            expressions of the batch.
        """
        size = data_samples[0].gt_sem_seg.data.shape[-2:]
        losses = {}
        for name, logits in {'mask': output.logits, **output.extras}.items():
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            logits = F.interpolate(logits, size, mode='bilinear', align_corners=False)
            if not losses:
                gt = gt_like(logits, data_samples)
                losses['train_iou'] = training_iou(logits[:, 0] > 0, gt)
            losses[f'loss_{name}'] = self.loss_decode(logits, gt, ignore_index=255)
        return losses


def conv_bn_prelu(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build 3x3 convolution without bias, batch norm and PReLU of one slope."""
    layers = dict(
        conv=nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        bn=nn.BatchNorm2d(out_channels),
        relu=nn.PReLU(),
    )
    return nn.Sequential(OrderedDict(layers))
