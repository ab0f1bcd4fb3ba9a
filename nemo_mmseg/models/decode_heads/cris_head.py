"""CRIS's head: a decoder over pixels and words, then a comparison with the sentence."""

from __future__ import annotations

import math

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.losses.targets import gt_like, training_iou
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.layers import conv_bn_relu, twice
from nemo_mmseg.models.utils.positions import sine_position_1d, sine_position_2d


@MODELS.register_module()
class CRISHead(BaseModule):
    """Head whose pixels attend to each other and the words, then meet the sentence.

    Wang et al., *CRIS: CLIP-driven referring image segmentation*, 2022. The paper's "text-to-pixel
    contrastive loss" is, in its code, a binary cross entropy of these comparisons.

    Args:
        in_channels: Channels of the map that comes in; a multiple of four.
        word_channels: Size of a word feature.
        sentence_channels: Size of the sentence feature.
        num_layers: Decoder layers.
        num_heads: Attention heads of a decoder layer.
        feedforward_channels: Hidden size of a decoder layer.
        dropout: Dropout of the decoder.
        proj_channels: Channels in which pixels and sentence are compared; None takes half of
            ``in_channels``.
        loss_decode: MMSegmentation's loss for logits ``(E, 1, h, w)`` and labels ``(E, h, w)``.
        gt_resize: How the ground truth is brought to the size of the logits: ``'nearest'`` as
            published, or ``'area'``; see :func:`~nemo_mmseg.models.losses.targets.gt_like`.
        meter_threshold: Foreground probability from which the training IoU counts a pixel.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        in_channels: int = 512,
        word_channels: int = 512,
        sentence_channels: int = 1024,
        num_layers: int = 3,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        proj_channels: int | None = None,
        loss_decode: dict | None = None,
        gt_resize: str = 'nearest',
        meter_threshold: float = 0.35,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.decoder = CRISDecoder(
            in_channels, word_channels, num_layers, num_heads, feedforward_channels, dropout
        )
        self.projector = CRISProjector(
            in_channels, sentence_channels, proj_channels or in_channels // 2
        )
        if loss_decode is None:
            loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)
        self.loss_decode = MODELS.build(loss_decode)
        if gt_resize not in ('nearest', 'area'):
            raise ValueError(f'CRISHead: gt_resize={gt_resize!r} is not nearest or area')
        if not 0 < meter_threshold < 1:
            raise ValueError(f'CRISHead: meter_threshold={meter_threshold} is not in (0, 1)')
        self.gt_resize = gt_resize
        self.meter_threshold = meter_threshold

    def forward(self, feats: Tensor, text: TextFeatures) -> HeadOutput:
        """Compare every pixel with every expression.

        Args:
            feats: Maps ``(B, in_channels, h, w)``, or ``(E, ...)`` with ``text.image_index`` 0 to
                E - 1.
            text: The expressions, with a sentence feature.

        Returns:
            Logits ``(E, 1, 4 * h, 4 * w)``.
        """
        x = self.decoder(text.rows(feats), text.words, text.mask)
        return HeadOutput(self.projector(x, text.sentence))

    def loss(
        self, output: HeadOutput, text: TextFeatures, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compute the loss against the ground truth, brought to the size of the logits.

        Returns:
            The loss, and ``train_iou``: mean IoU in per cent over the expressions of the batch, at
            the size of the logits.
        """
        logits = output.logits.float()
        gt = gt_like(logits, data_samples, self.gt_resize)
        # logit(p) >= logit(t) spares the sigmoid; -log(1 / t - 1) is the logit of t.
        predicted = logits[:, 0] >= -math.log(1 / self.meter_threshold - 1)
        return {
            self.loss_decode.loss_name: self.loss_decode(logits, gt, ignore_index=255),
            'train_iou': training_iou(predicted, gt),
        }


class CRISDecoder(nn.Module):
    """Decoder layers with fixed position codes. Arguments as in :class:`CRISHead`."""

    def __init__(
        self,
        channels: int,
        word_channels: int,
        num_layers: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CRISDecoderLayer(channels, word_channels, num_heads, feedforward_channels, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Decode maps ``(E, C, h, w)`` with words ``(E, T, Cw)``; ``mask`` as in TextFeatures."""
        height, width = x.shape[-2:]
        pixels = x.flatten(2).transpose(1, 2)
        position = sine_position_2d(height, width, pixels.shape[-1], x.device).to(x.dtype)
        keys = words + sine_position_1d(*words.shape[1:], x.device).to(words.dtype)
        for layer in self.layers:
            pixels = layer(pixels, words, keys, position, ~mask)
        return self.norm(pixels).transpose(1, 2).unflatten(2, (height, width))


class CRISDecoderLayer(nn.Module):
    """Pre-norm decoder layer; each attention's result goes through a norm of its own."""

    def __init__(
        self,
        channels: int,
        word_channels: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        attention = dict(dropout=dropout, batch_first=True)
        self.self_attn = nn.MultiheadAttention(channels, num_heads, **attention)
        self.cross_attn = nn.MultiheadAttention(
            channels, num_heads, kdim=word_channels, vdim=word_channels, **attention
        )
        self.ffn = nn.Sequential(
            nn.Linear(channels, feedforward_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.LayerNorm(feedforward_channels),
            nn.Linear(feedforward_channels, channels),
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.self_attn_norm, self.cross_attn_norm = (nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, pixels: Tensor, words: Tensor, keys: Tensor, position: Tensor, padding: Tensor
    ) -> Tensor:
        """Let pixels attend to pixels, then to words.

        Args:
            pixels: ``(E, P, C)``.
            words: ``(E, T, Cw)``, the values of the attention.
            keys: ``(E, T, Cw)``, the words with their position code.
            position: Position code of the pixels ``(P, C)``.
            padding: ``(E, T)`` bool, True on padding.

        Returns:
            ``(E, P, C)``.
        """
        x = self.norm1(pixels)
        query = x + position
        x = self.self_attn(query, query, x, need_weights=False)[0]
        pixels = pixels + self.dropout(self.self_attn_norm(x))
        query = self.norm2(pixels) + position
        x = self.cross_attn(query, keys, words, key_padding_mask=padding, need_weights=False)[0]
        pixels = pixels + self.dropout(self.cross_attn_norm(x))
        return pixels + self.dropout(self.ffn(self.norm3(pixels)))


class CRISProjector(nn.Module):
    """Comparison of pixels with the sentence, in ``channels``, at four times the map's size."""

    def __init__(self, in_channels: int, sentence_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv1 = conv_bn_relu(in_channels, in_channels, 3)
        self.conv2 = conv_bn_relu(in_channels, channels, 3)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sentence_proj = nn.Linear(sentence_channels, channels * 9 + 1)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """Compare maps with sentences.

        Args:
            x: Maps ``(E, in_channels, h, w)``.
            sentence: Sentence features ``(E, Cs)``.

        Returns:
            Logits ``(E, 1, 4 * h, 4 * w)``.
        """
        x = self.conv3(self.conv2(twice(self.conv1(twice(x)))))
        kernel = self.sentence_proj(sentence)
        weight = kernel[:, :-1].reshape(-1, self.channels, 3, 3)
        return correlate(x, weight) + kernel[:, -1, None, None, None]


def correlate(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each map ``(E, C, H, W)`` with its kernel ``(E, C, 3, 3)`` to ``(E, 1, H, W)``.

    Equal to a grouped convolution with zero padding. That is slow with one output channel per
    group. Here one product over the channels serves all nine taps, whose one-channel maps are then
    shifted and added.
    """
    height, width = x.shape[-2:]
    taps = kernel.flatten(2).transpose(1, 2) @ x.flatten(2)
    taps = F.pad(taps.unflatten(2, (height, width)), (1, 1, 1, 1))
    total = 0
    for row in range(3):
        for column in range(3):
            tap = taps[:, 3 * row + column]
            total = total + tap[:, row : row + height, column : column + width]
    return total[:, None]
