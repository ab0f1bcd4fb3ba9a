"""CRIS's head: cross-modal decoder, projector and text-to-pixel loss."""

from __future__ import annotations

import math

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ..text_features import TextFeatures
from .cris_decoder import CRISDecoder
from .cris_projector import CRISProjector
from .truth import targets_like, training_iou


@MODELS.register_module()
class CRISHead(BaseModule):
    """Pixels attend to each other and to the words, then are compared with the sentence.

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
        loss_decode: A loss of MMSegmentation's for logits (E, 1, h, w) and labels (E, h, w).
        target_resize: How the truth is brought to the size of the logits: ``'nearest'`` as
            published, or ``'area'``; see :func:`targets_like`.
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
        target_resize: str = 'nearest',
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
        if target_resize not in ('nearest', 'area'):
            raise ValueError(f'CRISHead: target_resize={target_resize!r} is not nearest or area')
        if not 0 < meter_threshold < 1:
            raise ValueError(f'CRISHead: meter_threshold={meter_threshold} is not in (0, 1)')
        self.target_resize = target_resize
        self.meter_threshold = meter_threshold

    def forward(self, feats: Tensor, text: TextFeatures) -> Tensor:
        """Logits of E expressions.

        Args:
            feats: Maps (B, in_channels, h, w), or (E, ...) with ``text.image_index`` 0 to E - 1.
            text: The expressions, with a sentence feature.

        Returns:
            Logits (E, 1, 4 * h, 4 * w).
        """
        x = self.decoder(text.rows(feats), text.words, text.mask)
        return self.projector(x, text.sentence)

    def predict(self, feats: Tensor, text: TextFeatures) -> Tensor:
        """Logits (E, 1, 4 * h, 4 * w); see :meth:`forward`."""
        return self(feats, text)

    def loss(
        self, feats: Tensor, text: TextFeatures, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Loss against the ground truth, which is brought to the size of the logits.

        Returns:
            The loss, and ``train_iou``: mean IoU in per cent over the expressions of the batch, at
            the size of the logits.
        """
        logits = self(feats, text).float()
        target = targets_like(logits, data_samples, self.target_resize)
        # logit(p) >= logit(t) spares the sigmoid; -log(1 / t - 1) is the logit of t.
        found = logits[:, 0] >= -math.log(1 / self.meter_threshold - 1)
        return {
            self.loss_decode.loss_name: self.loss_decode(logits, target, ignore_index=255),
            'train_iou': training_iou(found, target),
        }
