"""CRIS's neck: three levels and the sentence become one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.structures import TextFeatures
from nemo_mmseg.models.utils.layers import conv_bn_relu


def with_coordinates(x: Tensor) -> Tensor:
    """Append each pixel's x and y, in [-1, 1], as two channels."""
    height, width = x.shape[-2:]
    columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype)
    rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)
    columns = columns.expand(x.shape[0], 1, height, width)
    rows = rows[:, None].expand(x.shape[0], 1, height, width)
    return torch.cat((x, columns, rows), dim=1)


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """Resize bilinearly to the size of another map."""
    return F.interpolate(x, other.shape[-2:], mode='bilinear', align_corners=False)


@MODELS.register_module()
class CRISNeck(BaseModule):
    """Feature pyramid whose coarsest level is multiplied by the sentence.

    What does not depend on the text is computed once per image. Wang et al., *CRIS: CLIP-driven
    referring image segmentation*, 2022.

    Args:
        in_channels: Channels of the maps of stride 8, 16 and 32.
        sentence_channels: Size of the sentence feature.
        channels: Channels inside the neck for the three levels. Defaults to the published ones.
        out_channels: Channels of the result; None takes ``channels[1]``.
        init_cfg: As in MMEngine.
    """

    takes_text = True

    def __init__(
        self,
        in_channels: Sequence[int],
        sentence_channels: int,
        channels: Sequence[int] = (256, 512, 1024),
        out_channels: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        c3, c4, c5 = in_channels
        low, mid, high = channels
        out = mid if out_channels is None else out_channels
        self.sentence_proj = nn.Sequential(
            nn.Linear(sentence_channels, high, bias=False), nn.BatchNorm1d(high), nn.ReLU()
        )
        self.image5 = conv_bn_relu(c5, high, 1)
        self.gate_norm = nn.Sequential(nn.BatchNorm2d(high), nn.ReLU(inplace=True))
        self.image4 = conv_bn_relu(c4, mid, 3)
        self.merge4 = conv_bn_relu(mid + high, mid, 1)
        self.image3 = conv_bn_relu(c3, low, 3)
        self.merge3 = conv_bn_relu(low + mid, mid, 1)
        self.query5 = conv_bn_relu(high, mid, 3)
        self.query4 = conv_bn_relu(mid, mid, 3)
        self.query3 = conv_bn_relu(mid, mid, 3)
        self.merge = conv_bn_relu(3 * mid, mid, 1)
        self.coordinates = conv_bn_relu(mid + 2, mid, 3)
        self.out = conv_bn_relu(mid, out, 3)

    def forward(self, feats: Sequence[Tensor], text: TextFeatures) -> Tensor:
        """Join image and sentence.

        Args:
            feats: Maps of stride 8, 16 and 32 of the B images.
            text: E expressions with a sentence feature.

        Returns:
            ``(E, out_channels, h, w)`` at stride 16.
        """
        c3, c4, c5 = feats
        f5, f4 = text.rows(self.image5(c5)), text.rows(self.image4(c4))
        f3 = text.rows(F.avg_pool2d(self.image3(c3), 2))
        sentence = self.sentence_proj(text.sentence)[:, :, None, None]
        f5 = self.gate_norm(f5 * sentence)
        f4 = self.merge4(torch.cat((f4, resize_like(f5, f4)), dim=1))
        f3 = self.merge3(torch.cat((f3, f4), dim=1))
        q5 = resize_like(self.query5(f5), f4)
        fused = self.merge(torch.cat((self.query3(f3), self.query4(f4), q5), dim=1))
        return self.out(self.coordinates(with_coordinates(fused)))
