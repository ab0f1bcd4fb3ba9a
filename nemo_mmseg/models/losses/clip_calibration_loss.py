"""What is left of an image under its response map should look to CLIP like the expression."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.protocols.geometry import foreground_margin
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.frozen import FrozenCLIP

# Cosines are kept this far from 0 and 1. So a negative one has no gradient, as published.
MARGIN = 1e-4


@MODELS.register_module()
class CLIPCalibrationLoss(BaseModule):
    """Auxiliary loss of a frozen CLIP that compares masked images with expressions.

    The image times the foreground probability should be near to its expression, and not to negative
    expressions, which describe other objects of the image. Liu et al., *Referring image
    segmentation using text supervision*, 2023. As published, CLIP gets the normalised input of the
    network, of which a masked pixel is 0, the mean colour.

    Args:
        model: open_clip's name of the frozen model, e.g. ``'ViT-B-32'``.
        pretrained: Tag or local file of its weights; None for random ones.
        positive_weight: Weight of ``loss_calibration``, the mean of -ln(cos).
        negative_weight: Weight of ``loss_calibration_negative``, the mean of -ln(1 - cos) over
            ``negative_expressions`` of the metainfo; 0 needs none.
        max_tokens: See :class:`~nemo_mmseg.models.utils.frozen.FrozenCLIP`.

    Raises:
        ValueError: Unknown model.
    """

    def __init__(
        self,
        model: str = 'ViT-B-32',
        pretrained: str | None = 'openai',
        positive_weight: float = 1.0,
        negative_weight: float = 2.0,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.teacher = FrozenCLIP(model, pretrained, max_tokens)
        self.positive_weight = positive_weight
        self.negative_weight = negative_weight

    def forward(
        self,
        inputs: Tensor,
        output: HeadOutput,
        text: TextFeatures,
        data_samples: list[SegDataSample],
    ) -> dict[str, Tensor]:
        """Compute both losses.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``.
            output: Logits of E expressions.
            text: Knows the image of each expression.
            data_samples: With ``expressions`` and, of as many negatives for each of them,
                ``negative_expressions``.

        Raises:
            ValueError: A sample has no negatives.
        """
        images = self.encode_masked(inputs, output, text)
        own = [one for sample in data_samples for one in sample.metainfo['expressions']]
        positive = positive_loss(cosine(images, self.encode_text(own)))
        losses = dict(loss_calibration=self.positive_weight * positive)
        if self.negative_weight:
            others = [one for sample in data_samples for one in negatives_of(sample)]
            texts = self.encode_text([one for several in others for one in several])
            negative = negative_loss(cosine(images[:, None], texts.unflatten(0, (len(own), -1))))
            losses['loss_calibration_negative'] = self.negative_weight * negative
        return losses

    def encode_masked(self, inputs: Tensor, output: HeadOutput, text: TextFeatures) -> Tensor:
        """Return CLIP's unit vectors ``(E, D)`` of the masked images."""
        margin = foreground_margin(output.logits)[:, None]
        margin = F.interpolate(margin, inputs.shape[-2:], mode='bilinear', align_corners=False)
        mask, images = (
            F.interpolate(x, self.teacher.image_size, mode='bilinear', align_corners=True)
            for x in (margin.sigmoid(), inputs)
        )
        return self.teacher.encode_image(mask * text.rows(images))

    def encode_text(self, expressions: list[str]) -> Tensor:
        """Return CLIP's unit vectors ``(E, D)`` of expressions."""
        return self.teacher.encode_text(self.teacher.tokenize(expressions))


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the products of unit vectors ``(..., D)``, in float32 at least, also in bfloat16."""
    kind = torch.promote_types(one.dtype, torch.float32)
    return (one.to(kind) * other.to(kind)).sum(dim=-1)


def positive_loss(cosines: Tensor) -> Tensor:
    """Return the mean of -ln(cos); one below 1e-4 counts as this, and has no gradient."""
    return -cosines.clamp(MARGIN, 1 - MARGIN).log().mean()


def negative_loss(cosines: Tensor) -> Tensor:
    """Return the mean of -ln(1 - cos)."""
    return -(1 - cosines).clamp(min=MARGIN).log().mean()


def negatives_of(sample: SegDataSample) -> list[list[str]]:
    """Return the negatives of each expression of a sample.

    Raises:
        ValueError: There are none.
    """
    negatives = sample.metainfo.get('negative_expressions')
    if negatives is None:
        raise ValueError(
            f'{sample.metainfo.get("img_path", "a data sample")} has no negative expressions: put '
            'SampleNegativeExpressions behind SampleExpressions, and '
            "extra_keys=['negative_expressions'] into PackReferringInputs"
        )
    return negatives
