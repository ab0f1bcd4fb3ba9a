"""Swin transformer without language, that starts from the published weights."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.models.backbones.swin import ShiftWindowMSA, SwinTransformer, WindowMSA
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nemo_mmseg.models.utils.swin_weights import load_swin_weights


@MODELS.register_module()
class PlainSwinTransformer(SwinTransformer):
    """MMSegmentation's Swin transformer, in the form in which networks for expressions use it.

    It computes the same. It reads the official classification weights, stores no position indices,
    and recomputes activations in a way that distributed training bears. It sees no text and so runs
    once per image.

    Liu et al., *Swin transformer: hierarchical vision transformer using shifted windows*, 2021.

    Args:
        pretrained: File or http(s) address of Swin's classification weights, official or
            OpenMMLab's layout, which ``init_weights`` loads; see
            :func:`~nemo_mmseg.models.utils.swin_weights.load_swin_weights`. None for random ones.
        drop_path_rate: Largest stochastic depth rate. Defaults to the published 0.3.
        with_cp: Compute the activations of blocks again in the backward pass instead of keeping
            them.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` means the same as ``pretrained``.
        kwargs: As in MMSegmentation's ``SwinTransformer`` (``embed_dims``, ``depths``,
            ``num_heads``, ``window_size`` ...). All stages are outputs.
    """

    # What a sub-class has beside Swin, by the first part of the names.
    new_parts: tuple[str, ...] = ()

    def __init__(
        self,
        *args,
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
        self.pretrained = pretrained
        self.with_cp = with_cp
        for module in self.modules():
            if isinstance(module, WindowMSA):
                # It follows from the window's size: nothing to store, nothing to load.
                index = module.relative_position_index
                module.register_buffer('relative_position_index', index, persistent=False)

    def init_weights(self) -> None:
        """Draw all linear layers and bias tables, then load the pretrained weights."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, ShiftWindowMSA):
                module.w_msa.init_weights()
        if self.pretrained is not None:
            load_swin_weights(self, self.pretrained, self.new_parts)

    def train(self, mode: bool = True) -> PlainSwinTransformer:
        """Change the mode; return the network, which MMSegmentation's Swin forgets."""
        super().train(mode)
        return self

    def _run(self, module: nn.Module, *inputs) -> Tensor:
        if self.with_cp and self.training:
            return checkpoint(module, *inputs, use_reentrant=False)
        return module(*inputs)

    def _run_blocks(self, stage: nn.Module, x: Tensor, size: Sequence[int]) -> Tensor:
        for block in stage.blocks:
            x = self._run(block, x, size)
        return x

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute maps of stride 4, 8, 16 and 32.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``, of any size.

        Returns:
            Four maps ``(B, C, h, w)`` with 1, 2, 4 and 8 times ``embed_dims`` channels.
        """
        x, size = self.patch_embed(inputs)
        x = self.drop_after_pos(x)
        outputs = []
        for i, stage in enumerate(self.stages):
            x = self._run_blocks(stage, x, size)
            output = getattr(self, f'norm{i}')(x)
            outputs.append(output.transpose(1, 2).unflatten(2, size))
            if stage.downsample is not None:
                x, size = stage.downsample(x, size)
        return tuple(outputs)
