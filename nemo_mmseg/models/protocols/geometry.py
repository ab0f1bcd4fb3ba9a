"""From the network's input back to the image, and what protocols share."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor


def foreground_margin(logits: Tensor) -> Tensor:
    """Return a logit per pixel ``(N, h, w)``, positive where the foreground wins, 0 in a tie.

    Args:
        logits: ``(N, 1, h, w)``, or ``(N, 2, h, w)`` with background first.
    """
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def stretch_matrix(source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """Return the ``(2, 3)`` matrix from pixels of size ``source`` to those of size ``target``."""
    scale = np.divide(target, source)[::-1]
    return np.array([[scale[0], 0, scale[0] / 2 - 0.5], [0, scale[1], scale[1] / 2 - 0.5]])


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the ``(2, 3)`` matrix that applies ``inner``, then ``outer``."""
    square = np.vstack([inner, [0, 0, 1]])
    return outer @ square


def image_to_input(meta: dict, input_shape: tuple[int, int]) -> np.ndarray:
    """Compute where the pixels of the original image lie in the network's input.

    Args:
        meta: Metainfo of the sample. ``warp_matrix`` ``(2, 3)`` maps x and y of the original image
            to the input before flip and padding; without it the image was resized to ``img_shape``.
            ``flip``, ``flip_direction`` and the padding that MMSegmentation's preprocessor notes
            are followed.
        input_shape: Height and width of the input.

    Returns:
        ``(2, 3)`` float64 matrix in pixels, whole numbers being pixel centres.
    """
    left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
    height, width = input_shape[0] - top - bottom, input_shape[1] - left - right
    if meta.get('warp_matrix') is not None:
        matrix = np.asarray(meta['warp_matrix'], dtype=np.float64).reshape(2, 3)
    else:
        matrix = stretch_matrix(meta.get('ori_shape', (height, width))[:2], (height, width))
    if meta.get('flip'):
        direction = meta.get('flip_direction', 'horizontal')
        if direction in ('horizontal', 'diagonal'):
            matrix = compose(np.array([[-1.0, 0, width - 1], [0, 1, 0]]), matrix)
        if direction in ('vertical', 'diagonal'):
            matrix = compose(np.array([[1.0, 0, 0], [0, -1, height - 1]]), matrix)
    return compose(np.array([[1.0, 0, left], [0, 1, top]]), matrix)


def original_shape(meta: dict, input_shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the original image; those of the input if it is not noted."""
    height, width = meta.get('ori_shape', input_shape)[:2]
    return int(height), int(width)


def is_straight(matrix: np.ndarray) -> bool:
    """Tell if a ``(2, 3)`` matrix keeps rows rows and columns columns, as all but rotations do."""
    return matrix[0][1] == 0 and matrix[1][0] == 0


def sample_bilinear(maps: Tensor, matrix: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Read maps at the places that a matrix gives for every pixel of a new image.

    Args:
        maps: ``(N, H, W)``.
        matrix: ``(2, 3)``, from pixels of the new image to pixels of the maps.
        shape: Height and width of the new image.

    Returns:
        ``(N, *shape)``, bilinear; outside of the maps their border goes on.
    """
    return _sample(maps, matrix, shape, 'bilinear')


def sample_bicubic(maps: Tensor, matrix: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Read maps as :func:`sample_bilinear`, but bicubic, as PyTorch resizes."""
    return _sample(maps, matrix, shape, 'bicubic')


def _sample(maps: Tensor, matrix: np.ndarray, shape: tuple[int, int], mode: str) -> Tensor:
    height, width = maps.shape[-2:]
    if tuple(shape) == (height, width) and np.allclose(matrix, np.eye(2, 3), atol=1e-9):
        return maps
    x = np.arange(shape[1], dtype=np.float64)
    y = np.arange(shape[0], dtype=np.float64)[:, None]
    # grid_sample counts from -1 to 1 between the centres of the outermost pixels.
    places = [
        2 * (row[0] * x + row[1] * y + row[2]) / max(side - 1, 1) - 1
        for row, side in zip(matrix, (width, height))
    ]
    if is_straight(matrix):  # a row and a column say it all: less to copy to the device
        places = [places[0][:1], places[1][:, :1]]
    grid = torch.stack([torch.from_numpy(place).to(maps).expand(shape) for place in places], dim=-1)
    sampled = F.grid_sample(
        maps[None], grid[None], mode=mode, padding_mode='border', align_corners=True
    )
    return sampled[0]


def store(sample: SegDataSample, probability: Tensor, mask: Tensor) -> None:
    """Put foreground probabilities and bool masks, both ``(N, H, W)``, into a data sample."""
    sample.seg_logits = PixelData(data=probability)
    sample.pred_sem_seg = PixelData(data=mask.to(torch.uint8))


def sample_stretched(
    maps: Tensor, meta: dict, input_shape: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Bring maps ``(N, *input_shape)`` to the image, and the image to ``size``, bilinear."""
    to_image = stretch_matrix(size, original_shape(meta, input_shape))
    return sample_bilinear(maps, compose(image_to_input(meta, input_shape), to_image), size)


def stretch_gt(sample: SegDataSample, size: tuple[int, int]) -> None:
    """Bring the ground truth of a data sample, if it has one, to a size as PIL's nearest does."""
    for field in ('gt_sem_seg', 'gt_clean_seg'):
        if field in sample:
            gt = sample.get(field).data
            resized = F.interpolate(gt[:, None].float(), size, mode='nearest-exact')[:, 0]
            setattr(sample, field, PixelData(data=resized.to(gt.dtype)))
