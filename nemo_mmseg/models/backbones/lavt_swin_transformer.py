"""Swin transformer in which every stage looks at the words."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.models.backbones.swin import ShiftWindowMSA, SwinTransformer, WindowMSA
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nemo_mmseg.models.structures import TextFeatures
from nemo_mmseg.models.utils.swin_weights import load_swin_weights

from .pixel_word_attention import PixelWordAttention


def language_gate(channels: int) -> nn.Sequential:
    """Build a gate: how much of the fused map goes into the stream, -1 to 1 everywhere."""
    return nn.Sequential(
        nn.Linear(channels, channels, bias=False),
        nn.ReLU(),
        nn.Linear(channels, channels, bias=False),
        nn.Tanh(),
    )


@MODELS.register_module()
class LAVTSwinTransformer(SwinTransformer):
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
        pretrained: File or http(s) address of Swin's classification weights, official or
            OpenMMLab's layout, which ``init_weights`` loads; see
            :func:`~nemo_mmseg.models.utils.swin_weights.load_swin_weights`. None for random ones.
        drop_path_rate: Largest stochastic depth rate. Defaults to the published 0.3.
        with_cp: Compute the activations of blocks and fusions again in the backward pass instead of
            keeping them.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` means the same as ``pretrained``.
        kwargs: As in MMSegmentation's ``SwinTransformer`` (``embed_dims``, ``depths``,
            ``num_heads``, ``window_size`` ...). All stages are outputs.
    """

    takes_text = True

    def __init__(
        self,
        *args,
        word_channels: int = 768,
        fusion_heads: Sequence[int] = (1, 1, 1, 1),
        fusion_drop: float = 0.0,
        gate_init: str = 'normal',
        pretrained: str | None = None,
        drop_path_rate: float = 0.3,
        with_cp: bool = False,
        init_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        if init_cfg is not None:  # MMSegmentation's way to name pretrained weights
            pretrained = init_cfg['checkpoint']
        # The blocks' own checkpointing re-enters autograd, which DDP does not bear.
        super().__init__(*args, drop_path_rate=drop_path_rate, use_abs_pos_embed=False, **kwargs)
        self.gate_init = gate_init
        self.pretrained = pretrained
        self.with_cp = with_cp
        self.fusions = nn.ModuleList(
            PixelWordAttention(channels, word_channels, heads, fusion_drop)
            for channels, heads in zip(self.num_features, fusion_heads, strict=True)
        )
        self.gates = nn.ModuleList(map(language_gate, self.num_features[:-1]))
        for module in self.modules():
            if isinstance(module, WindowMSA):
                # It follows from the window's size: nothing to store, nothing to load.
                index = module.relative_position_index
                module.register_buffer('relative_position_index', index, persistent=False)

    def init_weights(self) -> None:
        """Draw Swin's and the gates' linear layers, then load the pretrained weights.

        The fusions keep PyTorch's defaults.
        """
        super().init_weights()
        for fusion in self.fusions:
            for layer in fusion.children():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
        for module in self.modules():
            if isinstance(module, ShiftWindowMSA):
                module.w_msa.init_weights()
        if self.gate_init == 'zero':
            for parameter in self.gates.parameters():
                nn.init.zeros_(parameter)
        if self.pretrained is not None:
            load_swin_weights(self, self.pretrained, new_parts=('fusions', 'gates'))

    def train(self, mode: bool = True) -> LAVTSwinTransformer:
        """Change the mode; return the network, which MMSegmentation's Swin forgets."""
        super().train(mode)
        return self

    def _run(self, module: nn.Module, *inputs) -> Tensor:
        if self.with_cp and self.training:
            return checkpoint(module, *inputs, use_reentrant=False)
        return module(*inputs)

    def forward(self, inputs: Tensor, text: TextFeatures) -> tuple[Tensor, ...]:
        """Compute maps of stride 4, 8, 16 and 32 of E expressions.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``, of any size.
            text: E expressions and the images they belong to.

        Returns:
            Four maps ``(E, C, h, w)`` with 1, 2, 4 and 8 times ``embed_dims`` channels.
        """
        x, size = self.patch_embed(inputs)
        x = self.drop_after_pos(x)
        outputs = []
        for i, (stage, fusion) in enumerate(zip(self.stages, self.fusions)):
            for block in stage.blocks:
                x = self._run(block, x, size)
            if i == 0:
                x = text.rows(x)
            fused = self._run(fusion, x, text.words, text.mask)
            output = getattr(self, f'norm{i}')(fused)
            outputs.append(output.transpose(1, 2).unflatten(2, size))
            if i < len(self.gates):
                x = x + self.gates[i](fused) * fused
                x, size = stage.downsample(x, size)
        return tuple(outputs)
