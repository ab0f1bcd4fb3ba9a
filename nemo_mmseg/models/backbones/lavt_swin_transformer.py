"""Swin transformer in which every stage looks at the words."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.structures import TextFeatures

from .pixel_word_attention import PixelWordAttention
from .plain_swin_transformer import PlainSwinTransformer


def language_gate(channels: int) -> nn.Sequential:
    """Build a gate: how much of the fused map goes into the stream, -1 to 1 everywhere."""
    return nn.Sequential(
        nn.Linear(channels, channels, bias=False),
        nn.ReLU(),
        nn.Linear(channels, channels, bias=False),
        nn.Tanh(),
    )


@MODELS.register_module()
class LAVTSwinTransformer(PlainSwinTransformer):
    """MMSegmentation's Swin transformer with LAVT's pixel-word attention and language gates.

    After the blocks of each stage, :class:`PixelWordAttention` fuses the map with the words. The
    fused map, normalised, is the stage's output, and what the gate lets through of it is added to
    the stream that goes on to the next stage. The published gate of the last stage, whose result
    nothing uses, does not exist here, so that every parameter has a gradient. The blocks of the
    first stage do not see the words and run once per image, not once per expression.

    Yang et al., *LAVT: Language-aware vision transformer for referring image segmentation*, 2022.

    Args:
        word_channels: Size of a word feature.
        fusion_heads: Attention heads of each stage's fusion. Defaults to one everywhere.
        fusion_drop: Dropout in the fusion.
        gate_init: How the gates start: ``'normal'``, by noise of 0.02 as in LAVT, or ``'zero'`` as
            in ReLA.
        with_cp: Compute the activations of blocks and fusions again in the backward pass instead of
            keeping them.
        kwargs: As in :class:`PlainSwinTransformer` (``pretrained``, ``drop_path_rate`` ...).
    """

    takes_text = True
    starts_without_text = True
    new_parts = ('fusions', 'gates')

    def __init__(
        self,
        *args,
        word_channels: int = 768,
        fusion_heads: Sequence[int] = (1, 1, 1, 1),
        fusion_drop: float = 0.0,
        gate_init: str = 'normal',
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.gate_init = gate_init
        self.fusions = nn.ModuleList(
            PixelWordAttention(channels, word_channels, heads, fusion_drop)
            for channels, heads in zip(self.num_features, fusion_heads, strict=True)
        )
        self.gates = nn.ModuleList(map(language_gate, self.num_features[:-1]))

    def init_weights(self) -> None:
        """Initialise as the plain Swin, the gates too; the fusions keep PyTorch's defaults."""
        super().init_weights()
        for fusion in self.fusions:
            for layer in fusion.children():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
        if self.gate_init == 'zero':
            for parameter in self.gates.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, text: TextFeatures | None = None) -> Tensor | tuple[Tensor, ...]:
        """Run :meth:`encode_image`, or, with the text, :meth:`fuse` on its result."""
        return self.encode_image(x) if text is None else self.fuse(x, text)

    def encode_image(self, images: Tensor) -> Tensor:
        """Compute what does not look at the words: patches and the blocks of the first stage.

        Args:
            images: Normalised ``(B, 3, H, W)``, of any size.

        Returns:
            The stream ``(B, h, w, embed_dims)`` of stride 4.
        """
        x, size = self.patch_embed(images)
        x = self.drop_after_pos(x)
        return self._run_blocks(self.stages[0], x, size).unflatten(1, size)

    def fuse(self, x: Tensor, text: TextFeatures) -> tuple[Tensor, ...]:
        """Compute maps of stride 4, 8, 16 and 32 of E expressions.

        Args:
            x: Result of :meth:`encode_image`.
            text: E expressions and the images they belong to.

        Returns:
            Four maps ``(E, C, h, w)`` with 1, 2, 4 and 8 times ``embed_dims`` channels.
        """
        size = x.shape[1:3]
        x = text.rows(x.flatten(1, 2))
        outputs = []
        for i, (stage, fusion) in enumerate(zip(self.stages, self.fusions)):
            if i > 0:
                x = self._run_blocks(stage, x, size)
            fused = self._run(fusion, x, text.words, text.mask)
            output = getattr(self, f'norm{i}')(fused)
            outputs.append(output.transpose(1, 2).unflatten(2, size))
            if i < len(self.gates):
                x = x + self.gates[i](fused) * fused
                x, size = stage.downsample(x, size)
        return tuple(outputs)
