"""TRIS's first stage: response maps learned from sentences alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.utils.dist import gather_rows

# Weight of what pixels and sentences gather from each other; fixed in the published code.
PROMPT_WEIGHT = 0.1
# CLIP's temperature when its training starts.
TEMPERATURE = 0.07


@MODELS.register_module()
class TRISHead(BaseModule):
    """Head whose response maps learn which sentences of a batch belong to which image.

    In training every image meets the sentences of the whole batch, on all GPUs. That its own
    sentences should respond and the others should not is all that the classification loss knows; it
    sees no mask and no box. Liu et al., *Referring image segmentation using text supervision*,
    2023.

    Args:
        in_channels: Channels of the coarsest map.
        sentence_channels: Size of the sentence feature.
        channels: Channels in which pixels and sentences are compared.
        learn_temperature: Whether the factor of the scores learns. Published, no optimizer had it:
            it stays 1 / 0.07.
        alone: Whether an expression is tested by itself, as published: other expressions then do
            not change its map, but what pixels gather is the same everywhere. If not, pixels
            gather from all expressions of the chunk, as in training.
        loss_weight: Weight of the classification loss.
        init_cfg: As in MMEngine.
    """

    learns_masks = False

    def __init__(
        self,
        in_channels: int = 2048,
        sentence_channels: int = 1024,
        channels: int = 1024,
        learn_temperature: bool = False,
        alone: bool = True,
        loss_weight: float = 5.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.pixel_proj = nn.Conv2d(in_channels, channels, 1)
        self.sentence_proj = nn.Linear(sentence_channels, channels)
        self.prompt = BilateralPrompt(channels)
        scale = torch.full((), math.log(1 / TEMPERATURE))
        if learn_temperature:
            self.logit_scale = nn.Parameter(scale)
        else:
            self.register_buffer('logit_scale', scale)
        self.alone = alone
        self.loss_weight = loss_weight

    def forward(self, feats: Sequence[Tensor], text: TextFeatures) -> HeadOutput:
        """Compare the pixels of each image with its expressions.

        Args:
            feats: Maps of the B images, the coarsest, ``(B, in_channels, h, w)``, last.
            text: E expressions with a sentence feature.

        Returns:
            Logits ``(E, 1, h, w)``. In training, ``extras`` has for the image of each expression
            its ``scores`` ``(E, N, h, w)`` with the N expressions of all ranks, and ``target``
            ``(E, N)`` bool, True where an expression belongs to that image.
        """
        if not self.training and self.alone:
            return HeadOutput(self._alone(*self._projected(feats, text), text))
        scores, first = self.scores(feats, text)
        scores = text.rows(scores)
        place = torch.arange(text.words.shape[0], device=scores.device)
        logits = scores[place, first + place][:, None]
        if not self.training:
            return HeadOutput(logits)
        target = torch.zeros(scores.shape[:2], dtype=torch.bool, device=scores.device)
        image = text.image_index
        target[:, first : first + len(text)] = image[:, None] == image
        return HeadOutput(logits, extras=dict(scores=scores, target=target))

    def scores(self, feats: Sequence[Tensor], text: TextFeatures) -> tuple[Tensor, int]:
        """Compare every image with every expression.

        Args:
            feats: As for :meth:`forward`.
            text: As for :meth:`forward`.

        Returns:
            Scores ``(B, N, h, w)``, and the place of the first of the E expressions among the N. In
            training those of the other ranks are there, too.
        """
        pixels, sentences = self._projected(feats, text)
        first = 0
        if self.training:
            sentences, first = gather_rows(sentences)
        pixels, sentences = self.prompt(pixels, sentences)
        scores = sentences @ pixels.flatten(2)
        return self.logit_scale.exp() * scores.unflatten(2, pixels.shape[-2:]), first

    def _projected(self, feats: Sequence[Tensor], text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Return unit vectors of pixels ``(B, C, h, w)`` and sentences ``(E, C)``."""
        pixels = F.normalize(self.pixel_proj(feats[-1]), dim=1)
        return pixels, F.normalize(self.sentence_proj(text.sentence), dim=1)

    def _alone(self, pixels: Tensor, sentences: Tensor, text: TextFeatures) -> Tensor:
        pixels, sentences = self.prompt.alone(pixels, sentences, text)
        scores = sentences[:, None] @ text.rows(pixels).flatten(2)
        return self.logit_scale.exp() * scores.unflatten(2, pixels.shape[-2:])

    def loss(
        self, output: HeadOutput, text: TextFeatures, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compute the classification loss.

        Returns:
            The loss, and ``train_area``: the share of the image, in per cent, that an expression
            wins against the others and the background; mean over the expressions of the batch.
        """
        scores, target = output.extras['scores'], output.extras['target']
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        found, area = image_scores(scores)
        loss = F.multilabel_soft_margin_loss(found, target.to(found.dtype))
        own = (area.detach() * target).sum() / target.sum()
        return dict(loss_cls=self.loss_weight * loss, train_area=100 * own)


def image_scores(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Say of whole images how well sentences fit them.

    A sentence gets the mean and the maximum of its scores, less a penalty on covering little. What
    it covers is told by a softmax over the sentences and a background of score 1.

    Args:
        scores: ``(B, N, h, w)``.

    Returns:
        Scores of images ``(B, N)``, and the covered share of each image ``(B, N)``, in [0, 1].
    """
    scores = scores.flatten(2)
    background = torch.ones_like(scores[:, :1])
    area = torch.cat((background, scores), dim=1).softmax(dim=1)[:, 1:].mean(dim=2)
    penalty = (1 - area) ** 3 * (0.01 + area).log()
    return scores.mean(dim=2) + scores.amax(dim=2) + penalty, area


class BilateralPrompt(nn.Module):
    """Pixels attend to sentences, and sentences to pixels.

    Args:
        channels: Channels of both, C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pixel_query, self.pixel_key, self.pixel_value = (
            nn.Sequential(
                nn.Conv2d(channels, channels, 1),
                nn.InstanceNorm2d(channels, affine=True),
                nn.ReLU(inplace=True),
            )
            for _ in range(3)
        )
        self.sentence_query, self.sentence_key, self.sentence_value = (
            nn.Sequential(nn.Linear(channels, channels), nn.ReLU(inplace=True)) for _ in range(3)
        )
        self.pixel_out = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.InstanceNorm2d(channels, affine=True)
        )
        self.sentence_out = nn.Linear(channels, channels)

    def forward(self, pixels: Tensor, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """Let every image and every sentence attend to each other.

        Args:
            pixels: ``(B, C, h, w)``.
            sentences: ``(N, C)``.

        Returns:
            Pixels ``(B, C, h, w)``, and sentences as they are beside each image, ``(B, N, C)``.
        """
        query = self.pixel_query(pixels).flatten(2).transpose(1, 2)
        sentence_query, key, value = (
            part(sentences).expand(len(pixels), -1, -1)
            for part in (self.sentence_query, self.sentence_key, self.sentence_value)
        )
        to_pixels = F.scaled_dot_product_attention(query, key, value)
        to_pixels = self.pixel_out(to_pixels.transpose(1, 2).unflatten(2, pixels.shape[-2:]))
        to_sentences = self._attend_to_pixels(sentence_query, *self._keys_and_values(pixels))
        return pixels + PROMPT_WEIGHT * to_pixels, sentences + PROMPT_WEIGHT * to_sentences

    def alone(self, pixels: Tensor, sentences: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Do the same for every sentence with its image, as if there were no other.

        Args:
            pixels: ``(B, C, h, w)``.
            sentences: ``(E, C)``.
            text: Knows the image of each sentence.

        Returns:
            Pixels ``(B, C, h, w)`` and sentences ``(E, C)``.
        """
        # All pixels gather the same from a single sentence; the norm leaves of it its offset.
        to_pixels = self.pixel_out[1].bias[:, None, None]
        key, value = (text.rows(part) for part in self._keys_and_values(pixels))
        query = self.sentence_query(sentences)[:, None]
        to_sentences = self._attend_to_pixels(query, key, value)[:, 0]
        return pixels + PROMPT_WEIGHT * to_pixels, sentences + PROMPT_WEIGHT * to_sentences

    def _keys_and_values(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values ``(B, h * w, C)`` of pixels."""
        key, value = self.pixel_key(pixels), self.pixel_value(pixels)
        return key.flatten(2).transpose(1, 2), value.flatten(2).transpose(1, 2)

    def _attend_to_pixels(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.sentence_out(F.scaled_dot_product_attention(query, key, value))
