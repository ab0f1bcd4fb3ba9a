"""LAVT's head: from coarse to fine, and two classes."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.concat_step import ConcatStep

from .two_class_head import TwoClassHead


@MODELS.register_module()
class LAVTHead(TwoClassHead):
    """Head that joins four maps from coarse to fine and tells object from background.

    Yang et al., *LAVT: Language-aware vision transformer for referring image segmentation*, 2022.

    Args:
        in_channels: Channels of the four maps, finest first.
        channels: Channels of the decoder; None takes half of the coarsest map's.
        norm_cfg: Config of the normalisation. Defaults to batch normalisation, which ``sync_bn`` of
            a config makes common to all GPUs.
        loss_decode: See :class:`TwoClassHead`.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (96, 192, 384, 768),
        channels: int | None = None,
        norm_cfg: dict | None = None,
        loss_decode: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_decode, init_cfg)
        self.in_channels = tuple(in_channels)
        channels = channels or in_channels[-1] // 2
        *finer, coarse = in_channels
        self.steps = nn.ModuleList()
        for fine in reversed(finer):
            self.steps.append(ConcatStep(coarse, fine, channels, norm_cfg or dict(type='BN')))
            coarse = channels
        self.conv_seg = nn.Conv2d(channels, 2, 1)

    def forward(self, feats: Sequence[Tensor], text: TextFeatures) -> HeadOutput:
        """Join the maps.

        Args:
            feats: Four maps, finest first: ``(E, C, h, w)``, or ``(B, ...)`` of the images that
                ``text.image_index`` names.
            text: The expressions.

        Returns:
            Logits ``(E, 2, h, w)``: background, object.

        Raises:
            ValueError: The maps have other channels than ``in_channels``.
        """
        found = tuple(feat.shape[1] for feat in feats)
        if found != self.in_channels:
            raise ValueError(
                f'LAVTHead: in_channels={self.in_channels}, but the maps have {found} channels. '
                'Those of VPD have one for each of context_length tokens in the second and third'
            )
        *finer, x = feats
        for step, fine in zip(self.steps, reversed(finer)):
            x = step(x, fine)
        return HeadOutput(text.rows(self.conv_seg(x)))
