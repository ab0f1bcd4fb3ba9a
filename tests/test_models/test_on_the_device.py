"""What leaves the device in an evaluation: counts, masks that are written, no maps of logits."""

import pytest
import torch

from nemo_mmseg.evaluation.dump_results import DumpReferringResults
from nemo_mmseg.evaluation.generalized_iou import GeneralizedReferringIoU
from nemo_mmseg.evaluation.referring_iou import ReferringIoU
from nemo_mmseg.models.protocols import cris
from nemo_mmseg.models.protocols.cubic_warp import resample_cubic

THREE = ['red ring', 'left ring', 'the red one on the left']
SHAPE = (48, 40)


@pytest.fixture
def moved(monkeypatch):
    """Type and number of values of every tensor that is asked for on the host."""
    found = []
    for name in ('cpu', 'numpy', 'tolist', 'item'):
        plain = getattr(torch.Tensor, name)

        def record(tensor, *args, plain=plain):
            found.append((tensor.dtype, tensor.numel()))
            return plain(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, record)
    # what runs on a GPU; on a CPU OpenCV warps
    monkeypatch.setattr(cris, 'warp_cubic', resample_cubic)
    return found


@pytest.mark.parametrize('protocol', ['OriginalProtocol', 'CRISProtocol', 'LAVTProtocol'])
def test_prediction_and_metrics_move_counts_alone(build, sample, moved, protocol):
    model = build(test_cfg=dict(protocol=dict(type=protocol))).eval()
    one = sample(THREE, gt=SHAPE, ori_shape=SHAPE, img_shape=(96, 64))
    moved.clear()  # what building asked for
    with torch.no_grad():
        out = [one.to_dict() for one in model.predict(torch.randn(1, 3, 96, 64), [one])]
    assert not moved
    for metric in (ReferringIoU(), GeneralizedReferringIoU()):
        metric.process(None, out)
    assert moved and max(number for _, number in moved) == 4 * len(THREE)


def test_written_results_move_masks_and_counts(build, sample, moved, tmp_path):
    model = build().eval()
    one = sample(THREE, gt=SHAPE, ori_shape=SHAPE, img_shape=(96, 64), sent_ids=[1, 2, 3])
    moved.clear()  # what building asked for
    with torch.no_grad():
        out = [one.to_dict() for one in model.predict(torch.randn(1, 3, 96, 64), [one])]
    metric = DumpReferringResults(str(tmp_path))
    metric.process(None, out)
    assert {dtype for dtype, number in moved if number > 12} == {torch.bool}
    for record, mask, values in zip(
        metric.results[0],
        out[0]['pred_sem_seg']['data'].bool(),
        out[0]['seg_logits']['data'].double(),
        strict=True,
    ):
        expected = float(values[mask].mean()) if mask.any() else 0.0
        assert record['score'] == pytest.approx(expected, rel=1e-9)
