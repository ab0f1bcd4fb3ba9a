"""Reads images, with an error that names the file where one cannot be used."""

from __future__ import annotations

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import get
from mmseg.registry import TRANSFORMS


def read_image(
    path: str, height: int | None = None, width: int | None = None, backend: str = 'cv2'
) -> np.ndarray:
    """Decode an image.

    Args:
        path: The file, local or of any MMEngine file backend.
        height: Annotated height in pixels; None does not compare.
        width: Annotated width in pixels; None does not compare.
        backend: mmcv's decoder.

    Returns:
        The image (H, W, 3) uint8, BGR.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no image, or its size is not the annotated one.
    """
    content = get(path)
    try:
        image = mmcv.imfrombytes(content, flag='color', backend=backend)
    except Exception as error:  # each decoder has exceptions of its own
        raise ValueError(f'cannot read the image {path}: {error}') from error
    if image is None:
        raise ValueError(f'cannot read the image {path}: it is damaged or no image')
    if height is not None and image.shape[:2] != (height, width):
        raise ValueError(
            f'{path} is {image.shape[1]}x{image.shape[0]} pixels, annotated as {width}x{height}'
        )
    return image


@TRANSFORMS.register_module()
class LoadReferringImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, with clear errors and a comparison with the annotated size.

    Required Keys:

    - img_path
    - height, width (optional: the annotated size)

    Added Keys:

    - img ((H, W, 3) uint8, BGR), img_shape, ori_shape

    Args:
        **kwargs: Of mmcv's transform; only ``imdecode_backend`` matters here. Defaults to OpenCV.
    """

    def transform(self, results: dict) -> dict:
        """Read the image."""
        image = read_image(
            results['img_path'],
            results.get('height'),
            results.get('width'),
            self.imdecode_backend,
        )
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
