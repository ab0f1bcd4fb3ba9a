"""MMSegmentation's ResNet that also returns what its stem makes of the image."""

from __future__ import annotations

from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class StemResNet(ResNet):
    """ResNet whose first map is that of the stem, after the max-pooling.

    Args:
        **kwargs: Of MMSegmentation's ``ResNet`` with a plain stem.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps ``(B, C, H / stride, W / stride)`` of the stem and of all stages."""
        x = self.maxpool(self.relu(self.norm1(self.conv1(x))))
        maps = [x]
        for name in self.res_layers:
            x = getattr(self, name)(x)
            maps.append(x)
        return tuple(maps)
