"""Mask proposals of any segmenter, of which the one that fits a response map best is chosen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.utils.fileio import load_json

from .annotations import LabelledImage


class ProposalFile:
    """Reader of a file of mask proposals.

    The file is JSON in COCO's layout: ``images`` with ``id``, ``file_name``, ``height`` and
    ``width``, and ``annotations`` with ``image_id`` and ``segmentation`` (RLE or polygons). Any
    number of annotations of an image may overlap. Further entries are not looked at. Images are
    told by their names, so that the ids may be the segmenter's own.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged or lacks an entry.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        content = load_json(path)
        if not isinstance(content, dict) or not {'images', 'annotations'} <= content.keys():
            raise ValueError(f"{path} is no file of proposals: it lacks 'images' or 'annotations'")
        self.sizes: dict[str, tuple[int, int]] = {}
        self._segmentations: dict[str, list] = {}
        names = {}
        for image in content['images']:
            number = _field(image, 'id', path, 'an image')
            what = f'image {number}'
            name = os.path.basename(_field(image, 'file_name', path, what))
            names[number] = name
            self.sizes[name] = tuple(_field(image, key, path, what) for key in ('height', 'width'))
            self._segmentations[name] = []
        for annotation in content['annotations']:
            number = _field(annotation, 'image_id', path, 'an annotation')
            if number not in names:
                raise ValueError(f'{path} has an annotation of image {number}, which it lacks')
            what = f'an annotation of image {number}'
            self._segmentations[names[number]].append(
                _field(annotation, 'segmentation', path, what)
            )

    def check(self, images: Sequence[LabelledImage]) -> None:
        """Refuse the proposals of other images.

        Args:
            images: Those that proposals are needed for.

        Raises:
            ValueError: Some have no proposals, or were of another size.
        """
        missing = [one.file_name for one in images if not self._segmentations.get(_name(one))]
        if missing:
            raise ValueError(
                f'{self.path} has no proposals for {len(missing)} of {len(images)} images, the '
                f'first: {missing[0]}. Is it of other data?'
            )
        for one in images:
            if self.sizes[_name(one)] != (one.height, one.width):
                height, width = self.sizes[_name(one)]
                raise ValueError(
                    f'{self.path}: {one.file_name} has {width}x{height} pixels there, '
                    f'{one.width}x{one.height} here'
                )

    def of(self, image: LabelledImage) -> Proposals:
        """Return the proposals of an image."""
        shape = image.height, image.width
        what = f'{self.path}: proposals of {image.file_name}'
        return Proposals(what, self._segmentations[_name(image)], shape)


@dataclass(frozen=True)
class Proposals:
    """The proposals of one image.

    Args:
        what: What they are, for messages.
        segmentations: RLE or polygons.
        shape: Height and width of the image.
    """

    what: str
    segmentations: list
    shape: tuple[int, int]

    @cached_property
    def masks(self) -> list[np.ndarray]:
        """The proposals decoded, ``(H, W)`` bool.

        Raises:
            ValueError: One cannot be decoded.
        """
        try:
            return [
                decode_segmentation(one, *self.shape).astype(bool) for one in self.segmentations
            ]
        except Exception as error:  # pycocotools raises plain exceptions and TypeErrors
            raise ValueError(f'{self.what} cannot be decoded: {error}') from error

    def choose(self, response: np.ndarray) -> tuple[np.ndarray, float]:
        """Find the proposal that overlaps most with a response map.

        The overlap is the IoU of mask and map, with the sum of the map as its area: a proposal must
        cover what responds, and little else.

        Args:
            response: ``(H, W)`` float32, 0 to 1: a response map, or a mask.

        Returns:
            The proposal ``(H, W)`` bool, the first of equally good ones, and its overlap, 0 to 1.
            An empty mask where none overlaps.
        """
        total = response.sum(dtype=np.float64)
        best, highest = np.zeros(self.shape, bool), 0.0
        for mask in self.masks:
            shared = response[mask].sum(dtype=np.float64)
            overlap = float(shared / max(mask.sum() + total - shared, 1e-9))
            if overlap > highest:
                best, highest = mask, overlap
        return best, highest


def _name(image: LabelledImage) -> str:
    return os.path.basename(image.file_name)


def _field(record: Any, key: str, path: str, what: str) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f'{path}: {what} has no {key!r}')
    return record[key]
