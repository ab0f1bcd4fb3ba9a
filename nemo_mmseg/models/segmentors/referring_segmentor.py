"""A network that segments what expressions describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmengine.model import ModuleList
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.losses.soft_targets import soft_target_loss
from nemo_mmseg.models.losses.targets import gt_like
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.layers import running_statistics_kept

from .base import BaseReferringSegmentor
from .masked_training import MaskedTraining


def _rows(x: Tensor | Sequence[Tensor], first: int, last: int) -> Tensor | tuple[Tensor, ...]:
    """Return rows ``first`` to ``last`` (exclusive) of one map or of several."""
    if isinstance(x, Tensor):
        return x[first:last]
    return tuple(_rows(item, first, last) for item in x)


@MODELS.register_module()
class ReferringSegmentor(BaseReferringSegmentor):
    """Text encoder, backbone, optional neck and head, for images with several expressions.

    In a batch of B images with E expressions in all, what does not look at the text is computed
    once per image. The parts have these methods:

    - text encoder: ``tokenize(expressions) -> ids, mask`` and ``encode(ids, mask) ->
      TextFeatures``; with the class attribute ``takes_image = True`` also ``condition(text, x) ->
      TextFeatures``, which adds what it needs of the images; for masked training
      ``token_vocabulary() -> TokenVocabulary``
    - backbone, neck: ``forward(x)``; with the class attribute ``takes_text = True`` it is
      ``forward(x, text)``, finds the image of each expression by ``text.rows(x)`` and returns E
      rows. With ``starts_without_text = True`` beside it, it is called twice: ``forward(x)``
      computes, of B images, what ``forward(x, text)`` goes on from
    - head: ``forward(feats, text) -> HeadOutput`` and ``loss(output, text, data_samples) -> dict``.
      In evaluation expressions come in chunks, each with its images. With the class attribute
      ``takes_all_images = True`` a chunk has the features of all B images of the batch (unless a
      backbone or neck took the text), and ``text.image_index`` points into them. For masked
      training in two passes: ``class_weights``, those of background and object in its loss of
      the mask times the weight of that loss, if it has two channels; and ``learns_masks = False``
      if it has no such loss
    - auxiliary loss: ``forward(inputs, output, text, data_samples) -> dict``, with the normalised
      images ``(B, 3, H, W)``. Networks of its own that do not learn are
      :class:`~nemo_mmseg.models.utils.frozen.FrozenModule`.

    In both kinds of losses ``text.rows(inputs)`` are the images of the expressions.

    Args:
        text_encoder: Config of the text encoder.
        backbone: Config of the backbone.
        decode_head: Config of the head.
        neck: Config of the neck.
        aux_losses: Configs of further losses, whose results join those of the head.
        data_preprocessor: Config of the data preprocessor, usually MMSegmentation's own.
        train_cfg: ``masked``: arguments of
            :class:`~nemo_mmseg.models.segmentors.masked_training.MaskedTraining`, which hides parts
            of images and expressions; without it nothing is hidden.
        test_cfg: ``protocol``: config of what turns logits into masks (default
            ``dict(type='OriginalProtocol')``; see :mod:`nemo_mmseg.models.protocols`);
            ``chunk_size``: expressions that go through the network at once (default 32).
        init_cfg: As in MMEngine.

    Raises:
        TypeError: ``train_cfg`` or ``test_cfg`` has another key.
        ValueError: A value of theirs is out of range, or the head has no loss of the mask for the
            two passes of masked training.
    """

    def __init__(
        self,
        text_encoder: dict,
        backbone: dict,
        decode_head: dict,
        neck: dict | None = None,
        aux_losses: Sequence[dict] = (),
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, test_cfg, init_cfg)
        self.text_encoder = MODELS.build(text_encoder)
        self.backbone = MODELS.build(backbone)
        if neck is not None:
            self.neck = MODELS.build(neck)
        self.decode_head = MODELS.build(decode_head)
        self.aux_losses = ModuleList(MODELS.build(loss) for loss in aux_losses)
        self.train_cfg = train_cfg
        self._set_train_cfg(**(train_cfg or {}))

    def _set_train_cfg(self, masked: dict | None = None) -> None:
        self.masked = None if masked is None else MaskedTraining(**masked)
        head = self.decode_head
        if self.masked and self.masked.passes == 2 and not getattr(head, 'learns_masks', True):
            raise ValueError(
                f'train_cfg.masked: {type(head).__name__} does not learn masks, which the second '
                'pass compares; set passes=1'
            )

    def _stages(self, with_text: bool) -> list[nn.Module]:
        """Return what of backbone and neck runs without the text, or with it and after it."""
        stages = [self.backbone] + ([self.neck] if self.with_neck else [])
        takes = [getattr(stage, 'takes_text', False) for stage in stages]
        first = takes.index(True) if any(takes) else len(stages)
        if with_text:
            return stages[first:]
        starts = any(getattr(stage, 'starts_without_text', False) for stage in stages[first:][:1])
        return stages[: first + starts]

    def tokenize(self, expressions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return token ids ``(E, T)`` and a mask, True on real tokens, of expressions."""
        return self.text_encoder.tokenize(expressions)

    def encode_image(self, inputs: Tensor) -> Tensor | Sequence[Tensor]:
        """Compute what needs no text, B rows, of images ``(B, 3, H, W)``."""
        x = inputs
        for stage in self._stages(with_text=False):
            x = stage(x)
        return x

    def fuse(
        self, x: Tensor | Sequence[Tensor], text: TextFeatures
    ) -> tuple[Tensor | Sequence[Tensor], TextFeatures]:
        """Compute what is left of backbone and neck once the text is there.

        Args:
            x: Result of :meth:`encode_image`.
            text: The expressions and the images they belong to.

        Returns:
            Features for the head, and the text, whose ``image_index`` points at their rows.
        """
        if getattr(self.text_encoder, 'takes_image', False):
            text = self.text_encoder.condition(text, x)
        for stage in self._stages(with_text=True):
            if getattr(stage, 'takes_text', False):
                x, text = stage(x, text), text.per_expression()
            else:
                x = stage(x)
        return x, text

    def extract_feat(
        self, inputs: Tensor, text: TextFeatures
    ) -> tuple[Tensor | Sequence[Tensor], TextFeatures]:
        """Compute what :meth:`fuse` returns of images ``(B, 3, H, W)`` and E expressions."""
        return self.fuse(self.encode_image(inputs), text)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Compute the losses of a batch, with all its expressions at once.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``.
            data_samples: B samples whose ``gt_sem_seg.data`` is ``(N, H, W)``, 0 or 1, or 255 =
                ignore.

        Raises:
            ValueError: Two losses have the same name.
        """
        expressions = self.expressions_of(data_samples)
        ids, mask = self.tokenize([one for several in expressions for one in several])
        if self.masked is None:
            return self.losses_of(inputs, ids, mask, data_samples)[0]
        masked_inputs = self.masked.mask_images(inputs)
        masked_ids = self.masked.mask_tokens(ids, mask, self.text_encoder.token_vocabulary())
        if self.masked.passes == 1:
            return self.losses_of(masked_inputs, masked_ids, mask, data_samples)[0]
        clean, masked = (inputs, ids), (masked_inputs, masked_ids)
        return self.losses_of_both(clean, masked, mask, data_samples)

    def losses_of(
        self, inputs: Tensor, ids: Tensor, mask: Tensor, data_samples: list[SegDataSample]
    ) -> tuple[dict[str, Tensor], HeadOutput]:
        """Compute the losses against the ground truth, and the output they were computed of.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``.
            ids: Tokens ``(E, T)`` of all expressions, image by image.
            mask: ``(E, T)`` bool, True on real tokens.
            data_samples: See :meth:`loss`.
        """
        output, text = self.output_of(inputs, ids, mask, data_samples)
        losses = self.decode_head.loss(output, text, data_samples)
        for aux_loss in self.aux_losses:
            found = aux_loss(inputs, output, text, data_samples)
            if taken := losses.keys() & found.keys():
                names = ', '.join(sorted(taken))
                raise ValueError(f'{type(aux_loss).__name__}: another loss is named {names}, too')
            losses.update(found)
        return losses, output

    def losses_of_both(
        self,
        clean: tuple[Tensor, Tensor],
        masked: tuple[Tensor, Tensor],
        mask: Tensor,
        data_samples: list[SegDataSample],
    ) -> dict[str, Tensor]:
        """Compute the losses of the two passes of masked training.

        The head's and the auxiliary losses are of the plain pass alone. The other pass compares its
        mask, at the size of the logits, with that of the plain pass; pixels without ground truth
        (255) do not count there, either. Running statistics of batch norm follow the plain pass
        alone, as images are tested whole.

        Args:
            clean: Normalised images ``(B, 3, H, W)`` and tokens ``(E, T)``.
            masked: The same with parts hidden.
            mask: ``(E, T)`` bool, True on the real tokens of the plain expressions. Both passes
                attend to these.
            data_samples: See :meth:`loss`.
        """
        losses, target = self.losses_of(*clean, mask, data_samples)
        with running_statistics_kept(self):
            output, _ = self.output_of(*masked, mask, data_samples)
        known = gt_like(output.logits, data_samples) != 255
        weights = self.decode_head.class_weights if output.logits.shape[1] == 2 else None
        loss = soft_target_loss(output.logits, target.logits, known, weights)
        return self.masked.join(losses, loss)

    def output_of(
        self, inputs: Tensor, ids: Tensor, mask: Tensor, data_samples: list[SegDataSample]
    ) -> tuple[HeadOutput, TextFeatures]:
        """Run the network on all expressions of a batch; arguments as for :meth:`losses_of`.

        Returns:
            The output of the head, and the text, whose ``image_index`` points at the images.
        """
        counts = [len(sample.metainfo['expressions']) for sample in data_samples]
        encoded = self.text_encoder.encode(ids, mask).of_images(counts)
        feats, text = self.extract_feat(inputs, encoded)
        output = self.decode_head(feats, text)
        # Losses look at the images of the batch, and no more at the rows of `feats`.
        text = replace(text, image_index=encoded.image_index, one_to_one=encoded.one_to_one)
        return output, text

    def respond(self, visual: Tensor | Sequence[Tensor], ids: Tensor, mask: Tensor) -> HeadOutput:
        """Compute the output of the head for the expressions of one image.

        Args:
            visual: Result of :meth:`encode_image`, one row.
            ids: Tokens ``(E, T)``.
            mask: ``(E, T)`` bool, True on real tokens.
        """
        text = self.text_encoder.encode(ids, mask)
        # Not `of_images`: in an exported graph the number of expressions must stay open.
        text = replace(text, image_index=torch.zeros_like(ids[:, 0]), one_to_one=False)
        return self.decode_head(*self.fuse(visual, text))

    def output(self, inputs: Tensor, data_samples: list[SegDataSample] | None) -> HeadOutput:
        """Compute the output of the head, chunk of expressions by chunk."""
        expressions = self.expressions_of(data_samples)
        owner = [i for i, several in enumerate(expressions) for _ in several]
        ids, mask = self.tokenize([one for several in expressions for one in several])
        visual = self.encode_image(inputs)
        all_images = getattr(self.decode_head, 'takes_all_images', False)
        outputs = []
        for start in range(0, len(owner), self.chunk_size):
            stop = min(start + self.chunk_size, len(owner))
            # Images without an expression in the chunk cost time, and most heads ignore them.
            first, last = (0, len(inputs)) if all_images else (owner[start], owner[stop - 1] + 1)
            counts = [owner[start:stop].count(i) for i in range(first, last)]
            text = self.text_encoder.encode(ids[start:stop], mask[start:stop]).of_images(counts)
            outputs.append(self.decode_head(*self.fuse(_rows(visual, first, last), text)))
        return HeadOutput.cat(outputs)
