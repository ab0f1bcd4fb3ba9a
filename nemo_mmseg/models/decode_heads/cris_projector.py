"""CRIS's projector: the sentence becomes a 3x3 kernel that is slid over the pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..necks.cris_neck import conv_bn_relu


def correlate(x: Tensor, kernel: Tensor) -> Tensor:
    """3x3 convolution of each map with a kernel of its own, zero padded.

    Equal to a grouped convolution, but done as one product over the channels for all nine taps,
    followed by nine shifted sums of one-channel maps: convolutions with one output channel per
    group are slow.

    Args:
        x: Maps (E, C, H, W).
        kernel: (E, C, 3, 3).

    Returns:
        (E, 1, H, W).
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


def twice(x: Tensor) -> Tensor:
    """Bilinear resize to twice the size."""
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


class CRISProjector(nn.Module):
    """Compare pixels with the sentence at four times the size of the map.

    Args:
        in_channels: Channels of the map.
        sentence_channels: Size of the sentence feature.
        channels: Channels in which both are compared.
    """

    def __init__(self, in_channels: int, sentence_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv1 = conv_bn_relu(in_channels, in_channels, 3)
        self.conv2 = conv_bn_relu(in_channels, channels, 3)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sentence_proj = nn.Linear(sentence_channels, channels * 9 + 1)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """Logits (E, 1, 4 * h, 4 * w) of maps (E, in_channels, h, w) and sentences (E, Cs)."""
        x = self.conv3(self.conv2(twice(self.conv1(twice(x)))))
        kernel = self.sentence_proj(sentence)
        weight = kernel[:, :-1].reshape(-1, self.channels, 3, 3)
        return correlate(x, weight) + kernel[:, -1, None, None, None]
