"""What heads share that tell background from object by two logits a pixel."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.losses.targets import gt_like, training_iou
from nemo_mmseg.models.structures import HeadOutput, TextFeatures


class TwoClassHead(BaseModule):
    """Base of heads with logits ``(E, 2, h, w)``: background, object.

    Args:
        loss_decode: MMSegmentation's loss for logits ``(E, 2, H, W)`` and labels ``(E, H, W)``.
            The default is the cross entropy with class weights 0.9 and 1.1 of LAVT and CARIS.
        init_cfg: As in MMEngine.
    """

    def __init__(self, loss_decode: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if loss_decode is None:
            loss_decode = dict(type='CrossEntropyLoss', class_weight=[0.9, 1.1])
        self.loss_decode = MODELS.build(loss_decode)

    @property
    def class_weights(self) -> list[float]:
        """Weights of background and object in the loss, times its own weight."""
        loss = self.loss_decode
        weights = getattr(loss, 'class_weight', None) or (1.0, 1.0)
        return [loss.loss_weight * weight for weight in weights]

    def loss(
        self, output: HeadOutput, text: TextFeatures, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compute the loss of the logits at the size of the ground truth.

        Returns:
            The loss, and ``train_iou``: mean IoU in per cent over the expressions of the batch.
        """
        size = data_samples[0].gt_sem_seg.data.shape[-2:]
        logits = output.logits.float()
        logits = F.interpolate(logits, size, mode='bilinear', align_corners=True)
        gt = gt_like(logits, data_samples)
        return {
            self.loss_decode.loss_name: self.loss_decode(logits, gt, ignore_index=255),
            'train_iou': training_iou(logits[:, 1] > logits[:, 0], gt),
        }
