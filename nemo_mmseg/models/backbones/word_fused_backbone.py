"""Any backbone, whose maps then gather the words they are about."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.structures import TextFeatures

from .pixel_word_attention import PixelWordAttention


@MODELS.register_module()
class WordFusedBackbone(BaseModule):
    """A backbone that ignores the text, with LAVT's pixel-word attention on each of its maps.

    It is what :class:`LAVTSwinTransformer` computes with gates of zero, for other backbones. The
    image is encoded once for all its expressions.

    Args:
        backbone: Config of the backbone.
        channels: Channels of its maps.
        word_channels: Size of a word feature.
        init_cfg: As in MMEngine.
    """

    takes_text = True
    starts_without_text = True

    def __init__(
        self,
        backbone: dict,
        channels: Sequence[int],
        word_channels: int,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.fusions = nn.ModuleList(PixelWordAttention(width, word_channels) for width in channels)
        self.norms = nn.ModuleList(map(nn.LayerNorm, channels))

    def forward(
        self, x: Tensor | Sequence[Tensor], text: TextFeatures | None = None
    ) -> Sequence[Tensor]:
        """Run the backbone, or, with the text, :meth:`fuse` on its maps."""
        return self.backbone(x) if text is None else self.fuse(x, text)

    def fuse(self, maps: Sequence[Tensor], text: TextFeatures) -> tuple[Tensor, ...]:
        """Compute the maps of E expressions.

        Args:
            maps: Of the backbone, ``(B, C, h, w)``.
            text: E expressions and the images they belong to.

        Returns:
            Maps ``(E, C, h, w)``.
        """
        outputs = []
        for x, fusion, norm in zip(maps, self.fusions, self.norms, strict=True):
            pixels = text.rows(x.flatten(2).transpose(1, 2))
            fused = norm(fusion(pixels, text.words, text.mask))
            outputs.append(fused.transpose(1, 2).unflatten(2, x.shape[-2:]))
        return tuple(outputs)
