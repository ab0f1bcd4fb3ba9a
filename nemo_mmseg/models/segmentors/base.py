"""What networks share that turn images and expressions into masks."""

from __future__ import annotations

from abc import abstractmethod

import torch
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import TASK_UTILS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput


def _float32_at_least(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class BaseReferringSegmentor(BaseSegmentor):
    """Base of the segmentors: a sub-class computes logits, the protocol makes masks of them.

    Args:
        data_preprocessor: Config of the data preprocessor, usually MMSegmentation's own.
        test_cfg: ``protocol``: config of what turns logits into masks (default
            ``dict(type='OriginalProtocol')``; see :mod:`nemo_mmseg.models.protocols`);
            ``chunk_size``: expressions that go through the network at once (default 32).
        init_cfg: As in MMEngine.

    Raises:
        TypeError: ``test_cfg`` has another key.
        ValueError: ``chunk_size`` is below 1.
    """

    # Whether the network is evaluated as it is built, without a checkpoint.
    training_free = False

    def __init__(
        self,
        data_preprocessor: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.test_cfg = test_cfg
        self._set_test_cfg(**(test_cfg or {}))

    def _set_test_cfg(self, protocol: dict | None = None, chunk_size: int = 32) -> None:
        if chunk_size < 1:
            raise ValueError(f'chunk_size in test_cfg must be at least 1, not {chunk_size}')
        self.protocol = TASK_UTILS.build(protocol or dict(type='OriginalProtocol'))
        self.chunk_size = chunk_size

    def expressions_of(self, data_samples: list[SegDataSample] | None) -> list[list[str]]:
        """Return the expressions of each image.

        Raises:
            ValueError: A sample is without a list of expressions, or there are no samples.
        """
        found = []
        for sample in data_samples or [SegDataSample()]:
            expressions = sample.metainfo.get('expressions')
            if isinstance(expressions, str) or not expressions:
                name = sample.metainfo.get('img_path', 'a data sample')
                raise ValueError(f'{name}: `expressions` must be a list of strings, not empty')
            found.append(list(expressions))
        return found

    @abstractmethod
    def output(self, inputs: Tensor, data_samples: list[SegDataSample] | None) -> HeadOutput:
        """Compute logits of all expressions.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``.
            data_samples: B samples with ``expressions``.
        """

    def encode_decode(self, inputs: Tensor, data_samples: list[SegDataSample]) -> Tensor:
        """Return logits ``(E, C, h, w)`` of all expressions, at the size of the head."""
        return self.output(inputs, data_samples).logits

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample]) -> list[SegDataSample]:
        """Predict the masks of all expressions, by the protocol of ``test_cfg``.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``.
            data_samples: B samples with ``expressions`` and the geometry of the image in their
                metainfo.

        Returns:
            The samples, with ``pred_sem_seg.data`` ``(N, H', W')`` uint8 and ``seg_logits.data``
            ``(N, H', W')`` float32 foreground probabilities, at the original size unless the
            protocol says otherwise. If the head has no-target scores, ``no_target`` ``(N,)``.
        """
        output = self.output(inputs, data_samples).apply(_float32_at_least)
        rows = output.split([len(sample.metainfo['expressions']) for sample in data_samples])
        for sample, image, one in zip(data_samples, inputs, rows, strict=True):
            self.protocol(one, image, sample)
            if one.no_target is not None:
                sample.set_data({'no_target': one.no_target})
        return data_samples

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample]) -> Tensor:
        """Return logits ``(E, C, h, w)``, for tools that look at the plain network."""
        return self.encode_decode(inputs, data_samples)
