"""Parts of CRIS against plain formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nemo_mmseg.models.decode_heads.cris_head import CRISDecoder, correlate
from nemo_mmseg.models.necks.cris_neck import CRISNeck, with_coordinates
from nemo_mmseg.models.structures import TextFeatures
from nemo_mmseg.models.utils.positions import sine_position_1d, sine_position_2d


def text_of(counts, words=4, channels=6, sentence=5):
    total = sum(counts)
    features = TextFeatures(
        torch.randn(total, words, channels),
        torch.ones(total, words, dtype=torch.bool),
        torch.randn(total, sentence),
        torch.zeros(total, dtype=torch.long),
    )
    return features.of_images(counts)


def test_kernels_are_slid_as_by_a_grouped_convolution():
    x, kernel = torch.randn(3, 8, 5, 7).double(), torch.randn(3, 8, 3, 3).double()
    expected = F.conv2d(x.reshape(1, 24, 5, 7), kernel, padding=1, groups=3).transpose(0, 1)
    torch.testing.assert_close(correlate(x, kernel), expected)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(correlate(last, kernel), expected)


def test_position_codes_by_formula():
    table = sine_position_1d(9, 12).numpy()
    flat = sine_position_2d(3, 5, 24).numpy()
    for i in range(6):
        rate = 10000 ** (-2 * i / 12)
        np.testing.assert_allclose(table[:, 2 * i], np.sin(np.arange(9) * rate), atol=1e-6)
        np.testing.assert_allclose(table[:, 2 * i + 1], np.cos(np.arange(9) * rate), atol=1e-6)
    # pixel of column 4, row 2: x in the first half, y in the second
    np.testing.assert_allclose(flat[2 * 5 + 4, :12], table[4], atol=1e-6)
    np.testing.assert_allclose(flat[2 * 5 + 4, 12:], table[2], atol=1e-6)


def test_coordinates_are_x_then_y():
    added = with_coordinates(torch.zeros(2, 1, 3, 5))[:, 1:]
    assert added[0, 0, 2].tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert added[1, 1, :, 4].tolist() == pytest.approx([-1, 0, 1])


def test_padding_is_not_attended():
    torch.manual_seed(0)
    decoder = CRISDecoder(8, 6, 2, 2, 16, 0.0).eval()
    x, words = torch.randn(2, 8, 3, 5), torch.randn(2, 4, 6)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    changed = words.clone()
    changed[0, 2:] = 7
    with torch.no_grad():
        before, after = decoder(x, words, mask), decoder(x, changed, mask)
        torch.testing.assert_close(before, after)
        changed[1, 2:] = 7
        assert not torch.allclose(before[1], decoder(x, changed, mask)[1])
    assert before.shape == (2, 8, 3, 5)


@pytest.mark.parametrize('size', [(64, 64), (96, 160), (72, 104)])
def test_neck_shares_the_image_among_its_expressions(size):
    torch.manual_seed(0)
    neck = CRISNeck([4, 6, 8], 5, channels=[4, 6, 8]).eval()
    feats = [torch.randn(2, c, size[0] // s, size[1] // s) for c, s in ((4, 8), (6, 16), (8, 32))]
    text = text_of([2, 1])
    with torch.no_grad():
        together = neck(feats, text)
        rows = [f[[0, 0, 1]] for f in feats]
        apart = neck(rows, text.per_expression())
    assert together.shape == (3, 6, size[0] // 16, size[1] // 16)
    torch.testing.assert_close(together, apart)
