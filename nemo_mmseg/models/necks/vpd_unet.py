"""VPD's neck: the UNet of Stable Diffusion looks at latents and text, its inside is the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.converters.stable_diffusion_weights import load_stable_diffusion
from nemo_mmseg.models.structures import TextFeatures
from nemo_mmseg.models.utils.diffusion import import_diffusers

# Levels of the UNet, from fine (0) to coarse (3), whose features get attention maps appended.
WITH_MAPS = (1, 2)


@MODELS.register_module()
class VPDUNet(BaseModule):
    """UNet of Stable Diffusion as a feature extractor that is given a text.

    It is diffusers' ``UNet2DConditionModel`` without the layers that predict noise. It runs once,
    at timestep 1 and without noise. The features are those of the way up: the output of the finest
    level, and on the coarser ones of the second of three blocks. To the two levels in the middle
    the cross-attention is appended: for each token the share that it has of each position's
    attention, the mean over the heads and over all cross-attentions of a level.

    As published, the appended maps carry no gradient: the head learns to read them, but they do not
    learn to be read.

    Zhao et al., *Unleashing text-to-image diffusion models for visual perception*, 2023.

    Args:
        block_channels: Channels of the four levels. Defaults to Stable Diffusion 1's.
        layers_per_block: ResNet blocks (and transformers) of a level on the way down; on the way up
            there is one more.
        num_heads: Attention heads, the same everywhere.
        word_channels: Size of a word feature: 768 in Stable Diffusion 1, 1024 in 2.
        with_cp: Compute the activations of the blocks again in the backward pass instead of keeping
            them; as published.
        pretrained: Stable Diffusion's weights, which ``init_weights`` loads, see
            :func:`~nemo_mmseg.models.converters.stable_diffusion_weights.load_stable_diffusion`;
            None for random ones.
        init_cfg: As in MMEngine.

    Raises:
        ImportError: diffusers is not installed.
    """

    takes_text = True

    def __init__(
        self,
        block_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        num_heads: int = 8,
        word_channels: int = 768,
        with_cp: bool = True,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.pretrained = pretrained
        self.word_channels = word_channels
        self.unet = import_diffusers('VPDUNet').UNet2DConditionModel(
            block_out_channels=tuple(block_channels),
            layers_per_block=layers_per_block,
            attention_head_dim=num_heads,  # their name for the number of heads
            cross_attention_dim=word_channels,
        )
        # What would predict noise is not looked at.
        self.unet.conv_norm_out = None
        self.unet.conv_out = nn.Identity()
        self.unet.conv_act = nn.Identity()
        if with_cp:
            self.unet.enable_gradient_checkpointing()
        self._recorder = Recorder()
        self._register_hooks()

    def _register_hooks(self) -> None:
        """Record features and maps while the UNet runs."""
        down, up = self.unet.down_blocks, self.unet.up_blocks
        up[0].resnets[1].register_forward_hook(KeepFeature(self._recorder, 3))
        for level in WITH_MAPS:
            way_up = up[3 - level]
            way_up.attentions[1].register_forward_hook(KeepFeature(self._recorder, level))
            for transformer in (*down[level].attentions, *way_up.attentions):
                for block in transformer.transformer_blocks:
                    block.attn2.set_processor(KeepMaps(self._recorder, level))

    def init_weights(self) -> None:
        """Load the pretrained weights, if any."""
        super().init_weights()
        if self.pretrained is not None:
            load_stable_diffusion(self.unet, 'unet', self.pretrained)

    def forward(self, latents: Tensor, text: TextFeatures) -> tuple[Tensor, ...]:
        """Compute the maps of E expressions.

        Args:
            latents: ``(B, 4, h, w)`` of the images; 8 divides h and w.
            text: E expressions of T tokens, and the images they belong to. Padding counts as words.

        Returns:
            Four maps ``(E, C, h, w)`` ... ``(E, C, h / 8, w / 8)``, finest first. The two in the
            middle have T channels more than ``block_channels``.

        Raises:
            ValueError: Words have another size than ``word_channels``.
        """
        if text.words.shape[-1] != self.word_channels:
            raise ValueError(
                f'VPDUNet: word_channels={self.word_channels}, but the text encoder gives words of '
                f'{text.words.shape[-1]} channels'
            )
        latents = text.rows(latents)
        timestep = torch.ones(latents.shape[0], dtype=torch.long, device=latents.device)
        with self._recorder.record() as seen:
            finest = self.unet(latents, timestep, text.words).sample
        middle = [torch.cat((seen.features[i], seen.mean_map(i)), dim=1) for i in WITH_MAPS]
        return finest, *middle, seen.features[3]


@dataclass
class Recording:
    """What is recorded of one pass through a UNet.

    Args:
        features: Level -> map ``(E, C, h, w)``.
        maps: Level -> cross-attention maps ``(E, h * w, T)``.
    """

    features: dict[int, Tensor] = field(default_factory=dict)
    maps: dict[int, list[Tensor]] = field(default_factory=dict)

    def mean_map(self, level: int) -> Tensor:
        """Return the mean of a level's maps as ``(E, T, h, w)``, of the type of its features."""
        feature = self.features[level]
        mean = torch.stack(self.maps[level]).mean(dim=0)
        return mean.transpose(1, 2).unflatten(2, feature.shape[-2:]).to(feature.dtype)


class Recorder:
    """Records what the parts of a UNet compute.

    Gradient checkpointing runs blocks again in the backward pass, which is not recorded.
    """

    def __init__(self) -> None:
        self.current: Recording | None = None

    @contextmanager
    def record(self) -> Iterator[Recording]:
        """Record what runs inside the with block."""
        self.current = Recording()
        try:
            yield self.current
        finally:
            self.current = None


class KeepFeature:
    """Forward hook that keeps a block's output."""

    def __init__(self, recorder: Recorder, level: int) -> None:
        self.recorder, self.level = recorder, level

    def __call__(self, module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        """Keep the map ``(E, C, h, w)``; transformers return it in a tuple."""
        if self.recorder.current is not None:
            feature = output if isinstance(output, Tensor) else output[0]
            self.recorder.current.features[self.level] = feature


class KeepMaps:
    """Processor of diffusers' cross-attention that keeps what is attended to.

    The library's own never has the probabilities, as it uses fused attention.
    """

    def __init__(self, recorder: Recorder, level: int) -> None:
        self.recorder, self.level = recorder, level

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
    ) -> Tensor:
        """Let positions ``(E, N, C)`` attend to words ``(E, T, Cw)``; all words count."""

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query = heads(attn.to_q(hidden_states))
        key, value = (heads(to(encoder_hidden_states)) for to in (attn.to_k, attn.to_v))
        share = (attn.scale * query @ key.transpose(-1, -2)).softmax(dim=-1)
        if self.recorder.current is not None:
            maps = self.recorder.current.maps.setdefault(self.level, [])
            maps.append(share.detach().mean(dim=1))
        x = (share @ value).transpose(1, 2).flatten(2)
        for layer in attn.to_out:
            x = layer(x)
        return x
