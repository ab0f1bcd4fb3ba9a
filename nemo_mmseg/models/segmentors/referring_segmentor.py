"""A network that segments what expressions describe."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial

import torch
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.protocols import PROTOCOLS
from nemo_mmseg.models.structures import TextFeatures


def _rows(x: Tensor | Sequence[Tensor], first: int, last: int) -> Tensor | tuple[Tensor, ...]:
    """Rows ``first`` to ``last`` (exclusive) of one map or of several."""
    if isinstance(x, Tensor):
        return x[first:last]
    return tuple(_rows(item, first, last) for item in x)


@MODELS.register_module()
class ReferringSegmentor(BaseSegmentor):
    """Text encoder, backbone, optional neck and head, for images with several expressions.

    In a batch of B images with E expressions in all, what does not look at the text is computed
    once per image. A backbone or neck with the class attribute ``takes_text = True`` is called with
    the text as second argument, finds the image of each expression by ``text.rows(x)`` and returns
    E rows. Heads have ``loss(feats, text, data_samples)`` and ``predict(feats, text)``, which
    returns logits (E, C, h, w), C = 1 (sigmoid) or 2 (background, foreground), or a pair of these
    and no-target scores (E,).

    Args:
        text_encoder: Config of a module with ``tokenize`` and ``encode``.
        backbone: Config of the backbone.
        decode_head: Config of the head.
        neck: Config of the neck.
        data_preprocessor: Config of the data preprocessor, usually MMSegmentation's own.
        train_cfg: Unused; accepted because MMSegmentation's configs have it.
        test_cfg: ``protocol``: how logits become masks (``'original'``, the default, ``'cris'`` or
            ``'lavt'``; see :mod:`nemo_mmseg.models.protocols`); ``chunk_size``: expressions that go
            through the network at once (default 32); any further key is an option of the protocol.
        init_cfg: As in MMEngine.

    Raises:
        ValueError: Unknown protocol, an option that it does not have, or a threshold outside
            (0, 1).
    """

    def __init__(
        self,
        text_encoder: dict,
        backbone: dict,
        decode_head: dict,
        neck: dict | None = None,
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.text_encoder = MODELS.build(text_encoder)
        self.backbone = MODELS.build(backbone)
        if neck is not None:
            self.neck = MODELS.build(neck)
        self.decode_head = MODELS.build(decode_head)
        self.train_cfg = train_cfg
        self.test_cfg = dict(test_cfg or {})
        options = {**self.test_cfg}
        name = options.pop('protocol', 'original')
        self.chunk_size = options.pop('chunk_size', 32)
        if name not in PROTOCOLS:
            raise ValueError(f'unknown protocol {name!r} in test_cfg; known: {sorted(PROTOCOLS)}')
        if self.chunk_size < 1:
            raise ValueError(f'chunk_size in test_cfg must be at least 1, not {self.chunk_size}')
        unknown = set(options) - set(list(inspect.signature(PROTOCOLS[name]).parameters)[3:])
        if unknown:
            raise ValueError(f'protocol {name!r} in test_cfg has no option {sorted(unknown)}')
        if not 0 < options.get('threshold', 0.5) < 1:
            raise ValueError(f'threshold in test_cfg must be in (0, 1), not {options["threshold"]}')
        self.protocol = partial(PROTOCOLS[name], **options)

    def _stages(self, with_text: bool) -> list[nn.Module]:
        """Backbone and neck before the first that takes text, or from there on."""
        stages = [self.backbone] + ([self.neck] if self.with_neck else [])
        takes = [getattr(stage, 'takes_text', False) for stage in stages]
        first = takes.index(True) if any(takes) else len(stages)
        return stages[first:] if with_text else stages[:first]

    def encode_image(self, inputs: Tensor) -> Tensor | Sequence[Tensor]:
        """What can be computed of images (B, 3, H, W) without the text; B rows."""
        x = inputs
        for stage in self._stages(with_text=False):
            x = stage(x)
        return x

    def fuse(
        self, x: Tensor | Sequence[Tensor], text: TextFeatures
    ) -> tuple[Tensor | Sequence[Tensor], TextFeatures]:
        """What is left of backbone and neck once the text is there.

        Args:
            x: Result of :meth:`encode_image`.
            text: The expressions and the images they belong to.

        Returns:
            Features for the head, and the text, whose ``image_index`` points at their rows.
        """
        for stage in self._stages(with_text=True):
            if getattr(stage, 'takes_text', False):
                x, text = stage(x, text), text.per_expression()
            else:
                x = stage(x)
        return x, text

    def extract_feat(
        self, inputs: Tensor, text: TextFeatures
    ) -> tuple[Tensor | Sequence[Tensor], TextFeatures]:
        """Features for the head of images (B, 3, H, W) and E expressions; see :meth:`fuse`."""
        return self.fuse(self.encode_image(inputs), text)

    def expressions_of(self, data_samples: list[SegDataSample] | None) -> list[list[str]]:
        """The expressions of each image.

        Raises:
            ValueError: There are no data samples, or one is without expressions.
        """
        if not data_samples:
            raise ValueError('a referring segmentor needs data samples with `expressions`')
        found = []
        for sample in data_samples:
            expressions = sample.metainfo.get('expressions')
            if isinstance(expressions, str) or not expressions:
                name = sample.metainfo.get('img_path', 'a data sample')
                raise ValueError(f'{name}: `expressions` must be a list of strings, not empty')
            found.append(list(expressions))
        return found

    def encode_text(self, data_samples: list[SegDataSample]) -> TextFeatures:
        """Features of all expressions of a batch."""
        expressions = self.expressions_of(data_samples)
        text = self.text_encoder([one for several in expressions for one in several])
        return text.of_images([len(several) for several in expressions])

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Losses of a batch, with all its expressions at once.

        Args:
            inputs: Normalised images (B, 3, H, W).
            data_samples: B samples whose ``gt_sem_seg.data`` is (N, H, W), 0 or 1, 255 = ignore.
        """
        feats, text = self.extract_feat(inputs, self.encode_text(data_samples))
        return self.decode_head.loss(feats, text, data_samples)

    def _outputs(self, inputs: Tensor, data_samples: list[SegDataSample] | None) -> list:
        """Outputs of the head, chunk of expressions by chunk."""
        expressions = self.expressions_of(data_samples)
        owner = [i for i, several in enumerate(expressions) for _ in several]
        ids, mask = self.text_encoder.tokenize([one for several in expressions for one in several])
        visual = self.encode_image(inputs)
        outputs = []
        for start in range(0, len(owner), self.chunk_size):
            stop = min(start + self.chunk_size, len(owner))
            first, last = owner[start], owner[stop - 1] + 1
            counts = [owner[start:stop].count(i) for i in range(first, last)]
            text = self.text_encoder.encode(ids[start:stop], mask[start:stop]).of_images(counts)
            feats, text = self.fuse(_rows(visual, first, last), text)
            outputs.append(self.decode_head.predict(feats, text))
        return outputs

    def encode_decode(self, inputs: Tensor, data_samples: list[SegDataSample]) -> Tensor:
        """Logits (E, C, h, w) of all expressions, at the size of the head."""
        outputs = self._outputs(inputs, data_samples)
        return torch.cat([item if isinstance(item, Tensor) else item[0] for item in outputs])

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample]) -> list[SegDataSample]:
        """Masks of all expressions, by the protocol of ``test_cfg``.

        Args:
            inputs: Normalised images (B, 3, H, W).
            data_samples: B samples with ``expressions`` and the geometry of the image in their
                metainfo.

        Returns:
            The samples, with ``pred_sem_seg.data`` (N, H', W') uint8 and ``seg_logits.data`` (N,
            H', W') float32 foreground probabilities, at the original size unless the protocol says
            otherwise. If the head has no-target scores, ``no_target`` (N,).
        """
        outputs = self._outputs(inputs, data_samples)
        pairs = [(item, None) if isinstance(item, Tensor) else item for item in outputs]
        logits = torch.cat([pair[0] for pair in pairs])
        if not logits.is_floating_point() or logits.shape[1] not in (1, 2):
            raise ValueError(f'a head must return logits (E, 1 or 2, h, w), not {logits.shape}')
        counts = [len(sample.metainfo['expressions']) for sample in data_samples]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        for sample, rows in zip(data_samples, logits.split(counts), strict=True):
            self.protocol(rows, sample, tuple(inputs.shape[-2:]))
        if pairs[0][1] is not None:
            scores = torch.cat([pair[1] for pair in pairs]).float().split(counts)
            for sample, score in zip(data_samples, scores, strict=True):
                sample.set_data({'no_target': score})
        return data_samples

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample]) -> Tensor:
        """Logits (E, C, h, w), for tools that look at the plain network."""
        return self.encode_decode(inputs, data_samples)
