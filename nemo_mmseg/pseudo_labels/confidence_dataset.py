"""Training samples of the affinity network: images with confidence labels."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from nemo_mmseg.datasets.samplers import SampleIndex, generator_of
from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.utils.annotation_schema import ID, IMAGE
from nemo_mmseg.utils.faults import Rule

from .annotations import read_tables
from .confidence import UNKNOWN

SEGMENTATION = Rule(
    'a segmentation or null, as tools/pseudo_labels/make_confidence_labels.py writes it',
    (dict, list, type(None)),
)
LABEL = dict(id=ID, image_id=ID, segmentation=SEGMENTATION, unknown=SEGMENTATION)
# ImageNet's mean colour, BGR: what padding is filled with, so that it is 0 once normalised.
MEAN_COLOUR = (103.53, 116.28, 123.675)


@DATASETS.register_module()
class ConfidenceLabelDataset(BaseDataset):
    """Images with the confidence labels of their objects, one object an item.

    A sample is a function of seed, epoch and index (see :class:`SampleIndex`).

    Args:
        ann_file: What :func:`~.make.make_confidence_labels` wrote.
        data_prefix: ``dict(img_path=...)``, the folder of the images.
        **kwargs: Of MMEngine's ``BaseDataset``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or a file of another kind.
    """

    METAINFO = dict(classes=('background', 'object'))

    def load_data_list(self) -> list[dict]:
        """Read the labels (called by MMEngine)."""
        found, annotations = read_tables(self.ann_file, IMAGE, LABEL)
        images = {one['id']: one for one in found}
        items = []
        for annotation in annotations:
            image = images[annotation['image_id']]
            items.append(
                dict(
                    img_path=osp.join(self.data_prefix['img_path'], image['file_name']),
                    height=image['height'],
                    width=image['width'],
                    label=f'{self.ann_file}: annotation {annotation["id"]}',
                    sure=annotation['segmentation'],
                    unknown=annotation['unknown'],
                )
            )
        return items

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on one item with the sample's own random generator."""
        index = idx if isinstance(idx, SampleIndex) else SampleIndex(int(idx))
        return self.pipeline(dict(self.get_data_info(int(idx)), rng=index.generator()))


@TRANSFORMS.register_module()
class LoadConfidenceLabel(BaseTransform):
    """Decode the label of an object.

    Required Keys:

    - sure, unknown: segmentations, None for nothing
    - label: what they are, for messages
    - height, width

    Added Keys:

    - gt_seg_map: ``(H, W)`` uint8: 1 object, 0 background, 255 unknown
    """

    def transform(self, results: dict) -> dict:
        """Decode the label."""
        label = _decode(results, 'sure')
        label[_decode(results, 'unknown') > 0] = UNKNOWN
        results['gt_seg_map'] = label
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def _decode(results: dict, key: str) -> np.ndarray:
    """Decode a segmentation; an error names the annotation."""
    shape = results['height'], results['width']
    if results[key] is None:
        return np.zeros(shape, np.uint8)
    try:
        return decode_segmentation(results[key], *shape)
    except ValueError as error:
        raise ValueError(f'{results["label"]}, {key}: {error}') from error


@TRANSFORMS.register_module()
class AffinityCrop(BaseTransform):
    """Scale, mirror and crop an image as IRN's training does, and reduce the label.

    Images smaller than the crop lie anywhere in it.

    Required Keys:

    - img: ``(H, W, 3)`` uint8
    - gt_seg_map: ``(H, W)`` uint8

    Modified Keys:

    - img: ``(size, size, 3)`` float32, in the same range
    - gt_seg_map: ``(size / stride, size / stride)``; 255 beside the image

    Added Keys:

    - img_shape: height and width of the part that shows the image

    Args:
        size: Side of the crop in pixels.
        random: Whether scale, side and place are drawn; otherwise the crop begins at the image's
            corner. Defaults to True.
        scales: Range of the scale. Defaults to 0.5 to 1.5.
        fill: Colour beside the image. Defaults to ImageNet's mean, BGR.
        stride: Of the label. Defaults to 4.
    """

    def __init__(
        self,
        size: int,
        random: bool = True,
        scales: Sequence[float] = (0.5, 1.5),
        fill: Sequence[float] = MEAN_COLOUR,
        stride: int = 4,
    ) -> None:
        self.size = size
        self.random = random
        self.scales = tuple(scales)
        self.fill = tuple(fill)
        self.stride = stride

    def transform(self, results: dict) -> dict:
        """Crop image and label."""
        image, label = results['img'], results['gt_seg_map']
        rng = generator_of(results) if self.random else None
        if rng is not None:
            scale = rng.uniform(*self.scales)
            image = rescale(image, scale, Image.Resampling.BICUBIC)
            label = rescale(label, scale, Image.Resampling.NEAREST)
            if rng.random() < 0.5:
                image, label = image[:, ::-1], label[:, ::-1]
        # Along each axis, either the crop lies in the image or the image in the crop.
        source, target = zip(*(self._place(length, rng) for length in image.shape[:2]))
        canvas = np.empty((self.size, self.size, 3), np.float32)
        canvas[:] = self.fill
        canvas[target] = image[source]
        labels = np.full((self.size, self.size), UNKNOWN, np.uint8)
        labels[target] = label[source]
        results['img'] = canvas
        results['img_shape'] = tuple(part.stop - part.start for part in target)
        results['gt_seg_map'] = rescale(labels, 1 / self.stride, Image.Resampling.NEAREST)
        return results

    def _place(self, length: int, rng: np.random.Generator | None) -> tuple[slice, slice]:
        space = abs(length - self.size)
        start = 0 if rng is None else int(rng.integers(space + 1))
        used = min(length, self.size)
        inside, whole = slice(start, start + used), slice(0, used)
        return (inside, whole) if length > self.size else (whole, inside)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, random={self.random})'


def rescale(image: np.ndarray, scale: float, how: Image.Resampling) -> np.ndarray:
    """Scale an image or label ``(H, W[, 3])`` uint8 with Pillow, as IRN does."""
    height, width = (int(np.rint(length * scale)) for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), how))
