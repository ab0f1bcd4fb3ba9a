"""GroupViT and CLIPSeg of the transformers library, evaluated as they were published."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput
from nemo_mmseg.models.utils.frozen import FrozenTransformer

from .clip_grad_cam import BACKGROUND
from .training_free import TrainingFreeSegmentor


@MODELS.register_module()
class GroupViT(TrainingFreeSegmentor):
    """GroupViT (Xu et al., CVPR 2022): groups of patches that were learned from captions.

    The expression competes with words for the background. A pixel is foreground where the
    expression is likelier than all of them together. Groups are few (8), so objects of one kind are
    seldom told apart. The authors' rules for class names need several names an image; they are not
    used here.

    Args:
        model: Local folder or name on the hub, e.g. ``'nvidia/groupvit-gcc-yfcc'`` (its licence
            does not allow commercial use).
        template: What the network is told, with ``{}`` for the expression.
        background: Words that compete with the expression, at least one.
        data_preprocessor: See :class:`BaseReferringSegmentor`.
        train_cfg: Unused.
        test_cfg: See :class:`BaseReferringSegmentor`.

    Raises:
        ImportError: transformers is not installed.
        ValueError: There is no background: every pixel would be foreground.
    """

    def __init__(
        self,
        model: str,
        template: str = 'a photo of {}',
        background: Sequence[str] = BACKGROUND,
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, test_cfg)
        if not background:
            raise ValueError('GroupViT: background needs words that compete with the expression')
        self.frozen = FrozenTransformer('GroupViTModel', model)
        self.template = template
        self.background = tuple(background)

    @torch.no_grad()
    def output(self, inputs: Tensor, data_samples: list[SegDataSample] | None) -> HeadOutput:
        """Compute logits ``(E, 1, H, W)`` of all expressions against the background."""
        logits = []
        for image, expressions in zip(inputs, self.expressions_of(data_samples)):
            texts = [self.template.format(one) for one in (*expressions, *self.background)]
            found = self.frozen.network(
                **self.frozen.tokenize(texts), pixel_values=image[None], output_segmentation=True
            ).segmentation_logits[0]
            own, others = found[: len(expressions)], found[len(expressions) :]
            logits.append(own - others.logsumexp(0))
        return HeadOutput(torch.cat(logits)[:, None])


@MODELS.register_module()
class CLIPSeg(TrainingFreeSegmentor):
    """CLIPSeg (Lüddecke and Ecker, CVPR 2022): a decoder on CLIP, trained on masks of phrases.

    It has seen masks (PhraseCut), so it is no network that learned from text alone.

    Args:
        model: Local folder or name on the hub, e.g. ``'CIDAS/clipseg-rd64-refined'``.
        template: What the network is told, with ``{}`` for the expression.
        data_preprocessor: See :class:`BaseReferringSegmentor`.
        train_cfg: Unused.
        test_cfg: See :class:`BaseReferringSegmentor`.

    Raises:
        ImportError: transformers is not installed.
    """

    def __init__(
        self,
        model: str,
        template: str = '{}',
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, test_cfg)
        self.frozen = FrozenTransformer('CLIPSegForImageSegmentation', model)
        self.template = template

    @torch.no_grad()
    def output(self, inputs: Tensor, data_samples: list[SegDataSample] | None) -> HeadOutput:
        """Compute logits ``(E, 1, H, W)`` of all expressions, ``chunk_size`` of them at once."""
        expressions = self.expressions_of(data_samples)
        texts = [self.template.format(one) for several in expressions for one in several]
        owner = [i for i, several in enumerate(expressions) for _ in several]
        logits = []
        for start in range(0, len(texts), self.chunk_size):
            rows = slice(start, start + self.chunk_size)
            # transformers takes an image for each text.
            tokens = self.frozen.tokenize(texts[rows])
            found = self.frozen.network(**tokens, pixel_values=inputs[owner[rows]]).logits
            logits.append(found.reshape(-1, *inputs.shape[-2:]))
        return HeadOutput(torch.cat(logits)[:, None])
