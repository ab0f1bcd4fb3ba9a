"""A loss with a frozen teacher, for tests and for the processes that they start."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS

from nemo_mmseg.models.utils.frozen import FrozenCLIP


@MODELS.register_module(force=True)
class ToyTeacherLoss(BaseModule):
    """What is left of an image under its mask should look to a CLIP like the expression."""

    def __init__(self, model, pretrained):
        super().__init__()
        self.teacher = FrozenCLIP(model, pretrained)

    def forward(self, inputs, output, text, data_samples):
        mask = F.interpolate(output.logits[:, -1:].sigmoid(), inputs.shape[-2:])
        seen = self.teacher.encode_image(mask * text.rows(inputs))
        expressions = [one for sample in data_samples for one in sample.metainfo['expressions']]
        said = self.teacher.encode_text(self.teacher.tokenize(expressions))
        return dict(loss_toy=(1 - (seen * said).sum(-1)).mean())
