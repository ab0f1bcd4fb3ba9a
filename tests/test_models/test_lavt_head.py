import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from nemo_mmseg.models.decode_heads.lavt_head import LAVTHead
from nemo_mmseg.models.structures import TextFeatures

init_default_scope('mmseg')
SIZES = [(16, 12), (8, 6), (4, 3), (2, 2)]


def make():
    torch.manual_seed(0)
    return LAVTHead(in_channels=(4, 8, 16, 32)).double()


def make_feats(rows):
    torch.manual_seed(1)
    return [torch.randn(rows, 4 * 2**i, *size).double() for i, size in enumerate(SIZES)]


def make_text(rows):
    words, mask = torch.randn(rows, 5, 6), torch.ones(rows, 5, dtype=torch.bool)
    return TextFeatures(words, mask, None, torch.arange(rows), True)


def samples_of(masks):
    return [SegDataSample(gt_sem_seg=PixelData(data=mask[None])) for mask in masks]


def test_steps_go_from_coarse_to_fine():
    head, feats = make().eval(), make_feats(2)

    def conv(x, layer):
        x = F.conv2d(x, layer.conv.weight, padding=1)
        x = (x - layer.bn.running_mean[:, None, None]) / torch.sqrt(
            layer.bn.running_var[:, None, None] + 1e-5
        )
        return (x * layer.bn.weight[:, None, None] + layer.bn.bias[:, None, None]).clamp(min=0)

    x = feats[3]
    for step, fine in zip(head.steps, feats[2::-1]):
        x = F.interpolate(x, fine.shape[-2:], mode='bilinear', align_corners=True)
        x = conv(conv(torch.cat((x, fine), 1), step.conv1), step.conv2)
    expected = torch.einsum('ehwc,kc->ekhw', x.movedim(1, 3), head.conv_seg.weight[:, :, 0, 0])
    expected = expected + head.conv_seg.bias[:, None, None]
    torch.testing.assert_close(head(feats, make_text(2)).logits, expected)


def test_loss_is_the_weighted_mean_over_all_pixels():
    head, feats, text = make().eval(), make_feats(2), make_text(2)
    masks = (torch.rand(2, 64, 48) > 0.7).to(torch.uint8)
    output = head(feats, text)
    losses = head.loss(output, text, samples_of(masks))
    logits = F.interpolate(output.logits.float(), (64, 48), mode='bilinear', align_corners=True)
    logits = logits.detach().double().numpy()
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gt = masks.numpy().astype(bool)
    nll = -np.log(np.where(gt, probability[:, 1], probability[:, 0]))
    weight = np.where(gt, 1.1, 0.9)
    assert losses['loss_ce'].item() == pytest.approx((nll * weight).sum() / weight.sum(), rel=1e-5)
    found = logits[:, 1] > logits[:, 0]
    iou = (found & gt).sum((1, 2)) / (found | gt).sum((1, 2))
    assert losses['train_iou'].item() == pytest.approx(100 * iou.mean(), rel=1e-5)


def test_initial_values_are_pytorchs():
    weight = LAVTHead(in_channels=(32, 64, 128, 256)).steps[0].conv1.conv.weight
    assert weight.abs().max().item() == pytest.approx((9 * 384) ** -0.5, rel=0.01)


def test_one_expression_without_ground_truth_is_refused():
    head, text = make(), make_text(2)
    with pytest.raises(ValueError, match='2 expressions, but ground truth for 1'):
        head.loss(head(make_feats(2), text), text, samples_of(torch.zeros(1, 64, 48).byte()))
