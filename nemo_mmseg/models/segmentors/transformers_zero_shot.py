"""GroupViT and CLIPSeg of the transformers library, evaluated as they were published."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput
from nemo_mmseg.models.utils.frozen import FrozenTransformer

from .clip_grad_cam import BACKGROUND
from .training_free import TrainingFreeSegmentor


class TransformersSegmentor(TrainingFreeSegmentor):
    """Base of networks of the transformers library. What needs no text runs once per image.

    Args:
        kind: Name of the class in transformers.
        model: Local folder or name on the hub.
        template: What the network is told, with ``{}`` for the expression.
        data_preprocessor: See :class:`BaseReferringSegmentor`.
        test_cfg: See :class:`BaseReferringSegmentor`.

    Raises:
        ImportError: transformers is not installed.
        ValueError: The template has not one ``{}``.
    """

    def __init__(
        self,
        kind: str,
        model: str,
        template: str,
        data_preprocessor: dict | None = None,
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, test_cfg)
        if template.count('{}') != 1:
            raise ValueError(f'template is {template!r}; allowed is a text with {{}} in one place')
        self.frozen = FrozenTransformer(kind, model)
        self.template = template

    def tokenize(self, expressions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return token ids ``(E, T)`` and a mask, True on real tokens, of expressions."""
        return self.frozen.tokenize([self.template.replace('{}', one) for one in expressions])

    @abstractmethod
    def encode_image(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute what needs no text, B rows, of images ``(B, 3, H, W)``."""

    @abstractmethod
    def respond(self, visual: Sequence[Tensor], ids: Tensor, mask: Tensor) -> HeadOutput:
        """Compute logits ``(E, 1, H, W)`` of the expressions of one image.

        Args:
            visual: Result of :meth:`encode_image`, one row.
            ids: Tokens ``(E, T)``.
            mask: ``(E, T)`` bool, True on real tokens.
        """

    def text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the network's feature ``(E, D)`` of each text."""
        clip = getattr(self.frozen.network, 'clip', self.frozen.network)  # CLIPSeg holds one
        text = clip.text_model(input_ids=ids, attention_mask=mask)
        return clip.text_projection(text.pooler_output)

    @torch.no_grad()
    def output(self, inputs: Tensor, data_samples: list[SegDataSample] | None) -> HeadOutput:
        """Compute logits ``(E, 1, H, W)``, of ``chunk_size`` expressions of an image at once."""
        expressions = self.expressions_of(data_samples)
        visual = self.encode_image(inputs)
        outputs = []
        for i, several in enumerate(expressions):
            row = [x[i : i + 1] for x in visual]
            for start in range(0, len(several), self.chunk_size):
                tokens = self.tokenize(several[start : start + self.chunk_size])
                outputs.append(self.respond(row, *tokens))
        return HeadOutput.cat(outputs)


@MODELS.register_module()
class GroupViT(TransformersSegmentor):
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
        ValueError: The template has not one ``{}``, or there is no background: every pixel would
            be foreground.
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
        super().__init__('GroupViTModel', model, template, data_preprocessor, test_cfg)
        if not background:
            raise ValueError('GroupViT: background needs words that compete with the expression')
        self.background = tuple(background)
        # Features of the background, which cost more than an image: the last ones computed.
        self._encoded_background = torch.empty(0)

    def encode_image(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the groups of images.

        Returns:
            How much each pixel belongs to each group, ``(B, G, H, W)``; a vector for each group,
            ``(B, G, D)``, whose product with the unit vector of a text is the logit of that text;
            and the logit of all words for the background together, ``(B, 1, H, W)``.
        """
        from transformers.models.groupvit.modeling_groupvit import get_grouping_from_attentions

        network = self.frozen.network
        found = network.vision_model(inputs, output_attentions=True, return_dict=True)
        grouping = get_grouping_from_attentions(found.attentions, inputs.shape[-2:])
        groups = network.visual_projection(found.last_hidden_state.flatten(0, 1))
        groups = F.normalize(groups, dim=-1).unflatten(0, found.last_hidden_state.shape[:2])
        groups = groups * network.logit_scale.exp() ** 2  # squared in the published code, too
        others = _fit(grouping, groups, self._background_features(inputs))
        return grouping, groups, others.logsumexp(1, keepdim=True)

    def respond(self, visual: Sequence[Tensor], ids: Tensor, mask: Tensor) -> HeadOutput:
        """Compute logits ``(E, 1, H, W)`` of expressions against the background."""
        grouping, groups, others = visual
        texts = F.normalize(self.text_features(ids, mask), dim=-1)
        return HeadOutput(_fit(grouping, groups, texts).transpose(0, 1) - others)

    def _background_features(self, inputs: Tensor) -> Tensor:
        found, kind = self._encoded_background, inputs.device.type
        if not len(found) or (found.device, found.dtype) != (inputs.device, inputs.dtype):
            # They outlive this call, which may be one in lower precision or without gradients.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(kind, enabled=False):
                words = self.text_features(*self.tokenize(self.background))
                self._encoded_background = F.normalize(words, dim=-1)
        return self._encoded_background


def _fit(grouping: Tensor, groups: Tensor, texts: Tensor) -> Tensor:
    """Return how well each pixel fits each text, ``(B, E, H, W)``."""
    return ((texts @ groups.transpose(1, 2)) @ grouping.flatten(2)).unflatten(2, grouping.shape[2:])


@MODELS.register_module()
class CLIPSeg(TransformersSegmentor):
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
        ValueError: The template has not one ``{}``.
    """

    def __init__(
        self,
        model: str,
        template: str = '{}',
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            'CLIPSegForImageSegmentation', model, template, data_preprocessor, test_cfg
        )

    def encode_image(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the maps ``(B, 1 + N, C)`` of the layers that the decoder reads.

        Raises:
            ValueError: The images are no squares, or not of whole patches.
        """
        network = self.frozen.network
        (height, width), patch = inputs.shape[-2:], network.config.vision_config.patch_size
        if height != width or height % patch:
            raise ValueError(
                f'CLIPSeg: an input of {height}x{width}; allowed are squares whose side is a '
                f'multiple of {patch}'
            )
        found = network.clip.vision_model(inputs, output_hidden_states=True, return_dict=True)
        return tuple(found.hidden_states[layer + 1] for layer in network.extract_layers)

    def respond(self, visual: Sequence[Tensor], ids: Tensor, mask: Tensor) -> HeadOutput:
        """Compute logits ``(E, 1, H, W)`` of expressions."""
        maps = [x.expand(ids.shape[0], -1, -1) for x in visual]  # `len` would fix it in a graph
        logits = self.frozen.network.decoder(maps, self.text_features(ids, mask)).logits
        return HeadOutput(logits.reshape(ids.shape[0], 1, *logits.shape[-2:]))
