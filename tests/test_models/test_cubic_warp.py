"""The cubic warp without OpenCV against OpenCV."""

import cv2
import numpy as np
import pytest
import torch

from nemo_mmseg.models.protocols.cubic_warp import resample_cubic, warp_cubic

FLAGS = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
EXACT = int(cv2.__version__.split('.')[0]) >= 5  # OpenCV 4 rounds places to 1/32 pixel


def smooth(count, height, width):
    """Probabilities as a network gives them: no noise from pixel to pixel."""
    y, x = np.mgrid[:height, :width] / 30
    return np.stack([0.5 + 0.5 * np.sin(x + i) * np.cos(y - i) for i in range(count)]).astype('f4')


def matrix_of(kind, size, shape):
    scale = min(size[0] / shape[0], size[1] / shape[1])
    if kind == 'stretch':
        x, y = size[1] / shape[1], size[0] / shape[0]
        return np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5]])
    right = (size[1] - shape[1] * scale) / 2
    matrix = np.array([[scale, 0, right], [0, scale, (size[0] - shape[0] * scale) / 2]])
    if kind == 'flipped':
        matrix[0] = [-scale, 0, size[1] - 1 - right]
    return matrix


@pytest.mark.parametrize('kind', ['letterbox', 'stretch', 'flipped'])
@pytest.mark.parametrize('shape', [(480, 640), (640, 427), (90, 70)])
def test_it_is_opencvs(kind, shape):
    maps, matrix = smooth(2, 416, 416), matrix_of(kind, (416, 416), shape)
    expected = np.stack(
        [cv2.warpAffine(one, matrix, shape[::-1], flags=FLAGS, borderValue=0.0) for one in maps]
    )
    found = resample_cubic(torch.from_numpy(maps), matrix, shape).numpy()
    assert found.shape == expected.shape and found.dtype == np.float32
    tolerance = 1e-4 if EXACT else 2e-3
    # OpenCV 4 may place the first row that is outside on the other side of the edge
    close = np.abs(found - expected) <= tolerance
    assert close.all() if EXACT else close.mean() > 0.98
    different = (found > 0.35) != (expected > 0.35)
    assert not different[close & (np.abs(expected - 0.35) > tolerance)].any()


def test_on_a_cpu_opencv_itself_warps_whatever_the_matrix():
    maps = smooth(1, 60, 80)
    matrix = cv2.getRotationMatrix2D((40, 30), 20, 1.1)
    expected = cv2.warpAffine(maps[0], matrix, (70, 50), flags=FLAGS, borderValue=0.0)
    assert (warp_cubic(torch.from_numpy(maps), matrix, (50, 70))[0].numpy() == expected).all()


def test_nothing_but_zeros_lies_outside():
    matrix = np.array([[1.0, 0, 1000], [0, 1, 0]])
    assert (resample_cubic(torch.ones(1, 20, 20), matrix, (20, 20)) == 0).all()


def test_autocast_changes_nothing():
    maps, matrix = torch.rand(1, 50, 50), matrix_of('letterbox', (50, 50), (40, 60))
    plain = resample_cubic(maps, matrix, (40, 60))
    with torch.autocast('cpu', torch.bfloat16):
        cast = resample_cubic(maps, matrix, (40, 60))
    assert cast.dtype == torch.float32 and (cast == plain).all()
