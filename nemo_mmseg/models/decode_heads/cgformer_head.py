"""CGFormer's head: two tokens share out the pixels, and the object's token draws the mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.losses.targets import gt_like, training_iou
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.concat_step import ConcatStep
from nemo_mmseg.models.utils.layers import conv_bn_relu, twice

STRIDES = 16, 8, 4  # of the maps that the tokens group, in this order
TOKENS = 2  # the rest, the object
DROPOUT = 0.1
GROUP_WEIGHTS = 0.001, 0.01, 0.1  # of the losses of the groups, in the order of STRIDES
METER_THRESHOLD = 0.35  # foreground probability from which the training IoU counts a pixel


@MODELS.register_module()
class CGFormerHead(BaseModule):
    """Head whose two tokens compete for every pixel, from coarse to fine.

    In three rounds the coarse map is joined with the next finer one, the object's token reads the
    words (from the second round on), and each pixel goes to the token that it resembles most. A
    token becomes what it gathered. The object's token is the kernel of the mask.

    The choice is made with Gumbel noise, published in evaluation, too: scores then differ from run
    to run. Here evaluation has noise that was drawn once, the same for every expression, so that
    neither the run nor the batch changes a mask.

    Tang et al., *Contrastive grouping with Transformer for referring image segmentation*, 2023.

    Args:
        in_channels: Channels of the four maps, finest first.
        word_channels: Size of a word feature.
        channels: Channels of tokens and joined maps.
        image_size: Height and width of the network's input, multiples of 16: pixels have learned
            position codes, which fit this size alone.
        noise_seed: Seed of the noise in evaluation. None draws new noise each time, as published.
        init_cfg: As in MMEngine.

    Raises:
        ValueError: ``image_size`` is no pair of multiples of 16.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (128, 256, 512, 1024),
        word_channels: int = 768,
        channels: int = 512,
        image_size: Sequence[int] = (480, 480),
        noise_seed: int | None = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if len(image_size) != 2 or any(side < 16 or side % 16 for side in image_size):
            raise ValueError(
                f'CGFormerHead: image_size={tuple(image_size)} must be height and width, '
                'multiples of 16'
            )
        self.image_size = tuple(image_size)
        self.noise_seed = noise_seed
        *finer, coarse = in_channels
        self.tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(TOKENS, channels), std=0.02))
        self.fusions = nn.ModuleList()
        for fine in reversed(finer):
            self.fusions.append(ConcatStep(coarse, fine, channels, dict(type='BN'), bias=True))
            coarse = channels
        areas = [math.prod(self.image_size) // stride**2 for stride in STRIDES]
        self.positions = nn.ParameterList(
            nn.Parameter(torch.randn(area, channels) * channels**-0.5) for area in areas
        )
        self.readers = nn.ModuleList(WordReader(channels, word_channels) for _ in STRIDES[1:])
        # The last two rounds share one.
        self.groupings = nn.ModuleList(TokenGrouping(channels) for _ in range(2))
        self.projector = CGFormerProjector(channels)
        generator = torch.Generator().manual_seed(noise_seed or 0)
        for i, area in enumerate(areas):
            noise = gumbel((TOKENS, area), torch.device('cpu'), generator)
            self.register_buffer(f'noise{i}', noise, persistent=False)
        self.loss_ce = MODELS.build(
            dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)
        )
        self.loss_dice = MODELS.build(dict(type='DiceLoss', naive_dice=True, eps=1.0))

    def forward(self, feats: Sequence[Tensor], text: TextFeatures) -> HeadOutput:
        """Group the pixels three times, then draw the mask.

        Args:
            feats: Four maps of stride 4 to 32, finest first: ``(E, C, h, w)``, or ``(B, ...)`` of
                the images that ``text.image_index`` names.
            text: The expressions.

        Returns:
            Logits ``(E, 1, *image_size)``. ``extras`` has ``group0`` to ``group2`` ``(E, h, w)`` at
            strides 16, 8 and 4: 1 where a pixel went to the object's token, else 0.

        Raises:
            ValueError: The maps are those of images of another size. Up to three pixels less are
                not seen here, as a backbone fills them up.
        """
        *finer, x = feats
        size = tuple(STRIDES[-1] * side for side in finer[0].shape[-2:])
        if size != self.image_size:
            raise ValueError(
                f'CGFormerHead: the images are {size[0]}x{size[1]}, and its position tables fit '
                f'image_size={self.image_size} only: give both the same size in the config'
            )
        tokens, groups = self.tokens.expand(text.words.shape[0], -1, -1), {}
        for i, fine in enumerate(reversed(finer)):
            x = self.fusions[i](x, fine)
            if i > 0:
                tokens = self.readers[i - 1](tokens, text.words, text.mask)
            pixels = text.rows(x.flatten(2).transpose(1, 2) + self.positions[i])
            noise = self._noise(i, tokens.shape[0])
            tokens, group = self.groupings[min(i, 1)](tokens, pixels, noise)
            groups[f'group{i}'] = group[:, -1].unflatten(1, x.shape[-2:])
        logits = self.projector(x, tokens[:, -1], text)
        # The published frame of one pixel goes by shrinking the map, not by cutting it off.
        logits = F.interpolate(logits, self.image_size, mode='bilinear', align_corners=True)
        return HeadOutput(logits, extras=groups)

    def _noise(self, i: int, rows: int) -> Tensor:
        fixed = getattr(self, f'noise{i}')
        if self.training or self.noise_seed is None:
            return gumbel((rows, *fixed.shape[-2:]), fixed.device)
        return fixed

    def loss(
        self, output: HeadOutput, text: TextFeatures, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compute the losses of the mask, and of the pixels that the object's token got.

        Returns:
            Dice and cross entropy of the mask, the weighted Dice of each group, and ``train_iou``:
            mean IoU in per cent over the expressions of the batch.
        """
        logits = output.logits.float()
        gt = gt_like(logits, data_samples)
        losses = dict(
            loss_dice=self._dice(logits[:, 0], gt),
            loss_ce=self.loss_ce(logits, gt, ignore_index=255),
            # logit(p) >= logit(t) spares the sigmoid
            train_iou=training_iou(logits[:, 0] >= -math.log(1 / METER_THRESHOLD - 1), gt),
        )
        for i, weight in enumerate(GROUP_WEIGHTS):
            # Zeros and ones in the place of logits, as published.
            group = output.extras[f'group{i}'].float()
            losses[f'loss_group{i}'] = weight * self._dice(group, gt_like(group, data_samples))
        return losses

    def _dice(self, logits: Tensor, gt: Tensor) -> Tensor:
        """Compute Dice of ``(E, h, w)``; ignored pixels are background in both."""
        ignored = gt == 255
        predicted = logits.masked_fill(ignored, -math.inf)
        return self.loss_dice(predicted[:, None], gt.masked_fill(ignored, 0)[:, None])


def gumbel(
    shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draw standard Gumbel noise, float32."""
    return -torch.empty(shape, device=device).exponential_(generator=generator).log()


def feed_forward(channels: int, dropout: float) -> nn.Sequential:
    """Build the two layers that follow each attention; nothing leads around them."""
    return nn.Sequential(
        nn.Linear(channels, 2 * channels),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(2 * channels, channels),
        nn.Dropout(dropout),
    )


class WordReader(nn.Module):
    """The object's token, which is the last, attends to the words; one head."""

    def __init__(self, channels: int, word_channels: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(channels)
        self.word_norm = nn.LayerNorm(word_channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(word_channels, channels, bias=False)
        self.value = nn.Linear(word_channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(DROPOUT)
        self.norm = nn.LayerNorm(channels)
        self.ffn = feed_forward(channels, dropout=0.0)

    def forward(self, tokens: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Read; ``(E, 2, C)`` -> ``(E, 2, C)``. Words and mask are those of TextFeatures."""
        *others, token = tokens.split(1, dim=1)
        words = self.word_norm(words)
        read = F.scaled_dot_product_attention(
            self.query(self.token_norm(token)),
            self.key(words),
            self.value(words),
            attn_mask=mask[:, None],
            dropout_p=DROPOUT if self.training else 0.0,
        )
        tokens = torch.cat((*others, token + self.dropout(self.out(read))), dim=1)
        return self.ffn(self.norm(tokens))


class TokenGrouping(nn.Module):
    """Every pixel goes to one token; a token becomes the mean of its pixels and itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(channels)
        self.pixel_norm = nn.LayerNorm(channels)
        self.query, self.key, self.value, self.out = (
            nn.Linear(channels, channels) for _ in range(4)
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.norm = nn.LayerNorm(channels)
        self.ffn = feed_forward(channels, DROPOUT)
        # Logarithm of the temperature, at most 0. Its gradient is 0 where it starts.
        self.tau = nn.Parameter(torch.ones(1))

    def forward(self, tokens: Tensor, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Share out the pixels.

        Args:
            tokens: ``(E, 2, C)``.
            pixels: ``(E, P, C)``.
            noise: ``(2, P)`` or ``(E, 2, P)``, added to cosines.

        Returns:
            Tokens ``(E, 2, C)``, and who got which pixel, ``(E, 2, P)``: zeros and ones, with the
            gradient of a softmax.
        """
        pixels = self.pixel_norm(pixels)
        query = F.normalize(self.query(self.token_norm(tokens)), dim=-1)
        key = F.normalize(self.key(pixels), dim=-1)
        scores = query @ key.transpose(1, 2)
        soft = ((scores + noise) / self.tau.clamp(max=0).exp()).softmax(dim=1)
        hard = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
        groups = hard + (soft - soft.detach())
        shares = groups / (groups.sum(dim=-1, keepdim=True) + 1)
        gathered = self.dropout(self.out(shares @ self.value(pixels)))
        return self.ffn(self.norm(tokens + gathered)), groups


class CGFormerProjector(nn.Module):
    """The object's token compares itself with every pixel, at four times the map's size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(channels, channels, 3)
        self.conv2 = conv_bn_relu(channels, channels, 3)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.token_proj = nn.Linear(channels, channels + 1)

    def forward(self, x: Tensor, token: Tensor, text: TextFeatures) -> Tensor:
        """Compare.

        Published, the comparison is a 1x1 convolution with padding: a frame of one pixel surrounds
        the map, in which there is nothing but the bias.

        Args:
            x: Maps ``(E, C, h, w)``, or ``(B, ...)`` of the images.
            token: ``(E, C)``.
            text: The expressions.

        Returns:
            Logits ``(E, 1, 4 * h + 2, 4 * w + 2)``.
        """
        x = self.conv2(twice(self.conv1(twice(x))))
        weight, bias = self.token_proj(token).split((x.shape[1], 1), dim=1)
        # Two products in a row are one: the third convolution is not computed for each pixel.
        inner = (weight @ self.conv3.weight[:, :, 0, 0])[:, None] @ text.rows(x).flatten(2)
        inner = inner.unflatten(2, x.shape[-2:]) + (weight @ self.conv3.bias)[:, None, None, None]
        return F.pad(inner, (1, 1, 1, 1)) + bias[:, :, None, None]
