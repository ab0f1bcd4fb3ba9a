"""CLIP's ResNet, with CRIS's attention pool that keeps the map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.utils.clip_encoders import build_image_encoder, copy_weights


class DenseAttentionPool(nn.Module):
    """CLIP's attention pool, every position kept instead of one pooled vector.

    The positions of the map are queries, keys and values; CLIP's mean token and its row of the
    position table are left out (the table keeps that row, so that CLIP's weights fit). The rest of
    the table is resized to the map. A 1x1 convolution of the input is added. Same parameter names
    as CLIP's, and ``connect``.

    Args:
        grid: Side of the map that CLIP's position table was made for.
        channels: Channels of the input.
        num_heads: Attention heads.
        out_channels: Channels of the output.
    """

    def __init__(self, grid: int, channels: int, num_heads: int, out_channels: int) -> None:
        super().__init__()
        self.grid = grid
        self.num_heads = num_heads
        self.positional_embedding = nn.Parameter(torch.randn(grid**2 + 1, channels) / channels**0.5)
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, out_channels)
        self.connect = nn.Sequential(
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def position(self, height: int, width: int) -> Tensor:
        """Resize the position table to a map, ``(height * width, channels)``."""
        table = self.positional_embedding[1:]
        table = table.T.reshape(1, -1, self.grid, self.grid)
        table = F.interpolate(table, (height, width), mode='bicubic', align_corners=False)
        return table.flatten(2)[0].T

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each map: ``(B, channels, H, W)`` -> ``(B, out_channels, H, W)``."""
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.position(height, width).to(tokens.dtype)

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        q, k, v = heads(self.q_proj(tokens)), heads(self.k_proj(tokens)), heads(self.v_proj(tokens))
        pooled = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        pooled = self.c_proj(pooled).transpose(1, 2).unflatten(2, (height, width))
        return F.relu(pooled + self.connect(x))


@MODELS.register_module()
class OpenCLIPResNet(BaseModule):
    """Image encoder of an open_clip model with a ResNet.

    Radford et al., *Learning transferable visual models from natural language supervision*, 2021.
    The attention pool that keeps the map is that of Wang et al., *CRIS: CLIP-driven referring image
    segmentation*, 2022.

    Args:
        model: open_clip's name of the architecture, e.g. ``'RN50-quickgelu'``.
        pretrained: Tag or local file of the weights, loaded by ``init_weights``; None for random
            ones. ``connect`` of the attention pool is not in CLIP and starts from PyTorch's
            defaults.
        out_indices: Which maps are returned, 0 to 3 for strides 4, 8, 16 and 32. Defaults to CRIS's
            three.
        attention_pool: Whether the map of stride 32 goes through :class:`DenseAttentionPool`. If
            not, the network has no such pool.
        init_cfg: As in MMEngine.
    """

    takes_text = False

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        out_indices: Sequence[int] = (1, 2, 3),
        attention_pool: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.model = model
        self.pretrained = pretrained
        self.out_indices = tuple(out_indices)
        self.tower = build_image_encoder(model)
        pool = self.tower.attnpool
        channels, last = pool.c_proj.in_features, pool.c_proj.out_features
        if attention_pool:
            grid = self.tower.image_size // 32
            dense = DenseAttentionPool(grid, channels, pool.num_heads, last)
            dense.load_state_dict({**dense.state_dict(), **pool.state_dict()})
            self.tower.attnpool = dense
        else:
            self.tower.attnpool = nn.Identity()
            last = channels
        widths = channels // 8, channels // 4, channels // 2, last
        self.out_channels = tuple(widths[i] for i in self.out_indices)

    def init_weights(self) -> None:
        """Load the pretrained weights, if any."""
        super().init_weights()
        if self.pretrained is not None:
            copy_weights(self.tower, 'image', self.model, self.pretrained)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of ``out_indices`` of normalised images ``(B, 3, H, W)``."""
        tower = self.tower
        x, maps = tower.stem(inputs), []
        for layer in (tower.layer1, tower.layer2, tower.layer3, tower.layer4):
            x = layer(x)
            maps.append(x)
        maps[3] = tower.attnpool(x)
        return tuple(maps[i] for i in self.out_indices)
