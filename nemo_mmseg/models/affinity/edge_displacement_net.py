"""IRN's network: edges between objects, and for each pixel the way to the centre of its object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmseg.registry import MODELS
from torch import Tensor, nn

# Cells of the two maps are as large as four pixels of the image.
STRIDE = 4


class _Branch(nn.Sequential):
    """1x1 convolution, group normalisation, up-sampling, ReLU."""

    def __init__(self, channels: int, out_channels: int, groups: int, scale: int) -> None:
        super().__init__(
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.GroupNorm(groups, out_channels)
        )
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.scale > 1:
            x = F.interpolate(x, scale_factor=self.scale, mode='bilinear', align_corners=False)
        return x.relu()


@MODELS.register_module()
class EdgeDisplacementNet(BaseModel):
    """Network of the edges between objects and of the displacements to their centres.

    Ahn, Cho and Kwak, *Weakly Supervised Learning of Instance Segmentation with Inter-pixel
    Relations*, CVPR 2019 (IRN), as TRIS uses it. The backbone is pretrained and frozen: only the
    branches learn. After the training, :attr:`mean_displacement` is set to the mean over the
    training images; it is subtracted when displacements are predicted.

    Args:
        backbone: Config of a network that returns maps, the finest first: those of its stem and its
            four stages, or of the stages alone.
        loss: Config of the losses.
        channels: Channels of the maps. Defaults to those of a ResNet-50 with its stem.
        strides: Their strides, in pixels; one or two of 4, then coarser ones.
        pad_to: Images are padded with zeros to a multiple of this many pixels, for backbones whose
            maps are rounded down. Defaults to 1, no padding.
        **kwargs: Of MMEngine's ``BaseModel``.
    """

    def __init__(
        self,
        backbone: dict,
        loss: dict,
        channels: Sequence[int] = (64, 256, 512, 1024, 2048),
        strides: Sequence[int] = (4, 4, 8, 16, 16),
        pad_to: int = 1,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.backbone = MODELS.build(backbone).requires_grad_(False)
        self.pad_to = pad_to
        self.loss_pairs = MODELS.build(loss)
        scales = [stride // STRIDE for stride in strides]
        self.edge_branches = nn.ModuleList(
            _Branch(width, 32, 4, scale) for width, scale in zip(channels, scales)
        )
        self.edge_out = nn.Conv2d(len(channels) * 32, 1, 1)
        # The coarser maps meet at the size of the finest of them, and go from there to the others.
        self.num_fine = scales.count(1)
        middle = scales[self.num_fine]
        widths = [64, 128][-self.num_fine :] + [256] * (len(channels) - self.num_fine)
        self.displacement_branches = nn.ModuleList(
            _Branch(width, out, min(out // 8, 16), max(scale // middle, 1))
            for width, out, scale in zip(channels, widths, scales)
        )
        self.displacement_merge = _Branch(sum(widths[self.num_fine :]), 256, 16, middle)
        self.displacement_out = nn.Sequential(
            _Branch(sum(widths[: self.num_fine]) + 256, 256, 16, 1),
            nn.Conv2d(256, 2, 1, bias=False),
        )
        self.register_buffer('mean_displacement', torch.zeros(2))

    def train(self, mode: bool = True) -> EdgeDisplacementNet:
        """Switch the branches to training; the frozen backbone stays in evaluation."""
        super().train(mode)
        self.backbone.eval()
        return self

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits of edges and the displacements, without the mean.

        Args:
            images: ``(B, 3, H, W)``, normalised.

        Returns:
            ``(B, 1, h, w)`` and ``(B, 2, h, w)`` (rows, columns; in cells), a quarter of the size
            of the images, rounded up.
        """
        height, width = images.shape[-2:]
        with torch.no_grad():
            padding = -width % self.pad_to, -height % self.pad_to
            features = self.backbone(F.pad(images, (0, padding[0], 0, padding[1])))
        size = -(-height // STRIDE), -(-width // STRIDE)
        edges = _cropped(self.edge_branches, features, size)
        fine, branches = self.num_fine, self.displacement_branches
        early = _cropped(branches[:fine], features[:fine], size)
        late = _cropped(branches[fine:], features[fine:], features[fine].shape[-2:])
        late = self.displacement_merge(torch.cat(late, 1))[..., : size[0], : size[1]]
        displacement = self.displacement_out(torch.cat([*early, late], 1))
        return self.edge_out(torch.cat(edges, 1)), displacement

    def forward(
        self, inputs: Tensor, data_samples: Sequence | None = None, mode: str = 'tensor'
    ) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        """Compute maps or losses (MMEngine's modes).

        Args:
            inputs: ``(B, 3, H, W)``, normalised.
            data_samples: For ``'loss'``, with ``gt_sem_seg``: labels at the size of the maps.
            mode: ``'tensor'``: what :meth:`maps` returns; ``'loss'``: the losses; ``'predict'``:
                what :meth:`predict` returns of the images.

        Returns:
            See ``mode``.
        """
        if mode == 'predict':
            return self.predict(inputs)
        edge_logits, displacement = self.maps(inputs)
        if mode == 'tensor':
            return edge_logits, displacement
        labels = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
        return self.loss_pairs(edge_logits, displacement, labels)

    @torch.no_grad()
    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict edges, averaged with those of the mirrored image, and displacements.

        Args:
            images: ``(B, 3, H, W)``, normalised.

        Returns:
            Edges ``(B, h, w)``, 0 to 1, and displacements ``(B, 2, h, w)`` with the mean
            subtracted.
        """
        logits, displacement = self.maps(torch.cat([images, images.flip(-1)]))
        straight, mirrored = logits[:, 0].chunk(2)
        edge = (straight / 2 + mirrored.flip(-1) / 2).sigmoid()
        mean = self.mean_displacement[:, None, None]
        return edge, displacement[: len(images)] - mean


def _cropped(branches: nn.ModuleList, features: Sequence[Tensor], size: Sequence[int]) -> list:
    """Run each branch on its map, and cut what up-sampling made too large."""
    return [branch(x)[..., : size[0], : size[1]] for branch, x in zip(branches, features)]
