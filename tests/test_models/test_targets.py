"""How CRIS's head brings the ground truth to the size of its logits."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from nemo_mmseg.models.decode_heads.cris_head import CRISHead
from nemo_mmseg.models.losses.targets import gt_like


def sample(mask):
    data = SegDataSample()
    data.gt_sem_seg = PixelData(data=mask[None])
    return data


def test_area_is_centred_and_nearest_is_not():
    mask = torch.zeros(16, 16, dtype=torch.uint8)
    mask[6:14, 6:14] = 1  # centre 10: cells of four pixels, of which 4 hold two of the edge
    logits = torch.zeros(1, 1, 4, 4)
    nearest = gt_like(logits, [sample(mask)])[0]
    assert nearest.tolist() == mask[::4, ::4].tolist()
    area = gt_like(logits, [sample(mask)], 'area')[0]
    share = mask.float().reshape(4, 4, 4, 4).mean(dim=(1, 3))
    assert area.tolist() == (share >= 0.5).long().tolist()
    mask[0, 0] = 255
    assert gt_like(logits, [sample(mask)], 'area')[0, 0, 0] == 255


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match='gt_resize'):
        CRISHead(gt_resize='cubic')
    with pytest.raises(ValueError, match='meter_threshold=1'):
        CRISHead(meter_threshold=1)
