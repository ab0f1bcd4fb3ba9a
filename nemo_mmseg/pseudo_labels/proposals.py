"""Mask proposals of any segmenter, of which the one that fits a response map best is chosen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nemo_mmseg.datasets.segmentation import KINDS, clean_segmentation, decode_segmentation
from nemo_mmseg.utils.annotation_schema import ID, SIDE
from nemo_mmseg.utils.faults import Rule, fault

from .annotations import LabelledImage, read_tables

IMAGE = dict(
    id=ID,
    file_name=Rule('the path of a file', (str,), also=os.path.basename),
    height=SIDE,
    width=SIDE,
)
ANNOTATION = dict(image_id=ID, segmentation=Rule(KINDS, (list, dict)))


class ProposalFile:
    """Reader of a file of mask proposals.

    The file is JSON in COCO's layout: ``images`` with ``id``, ``file_name``, ``height`` and
    ``width``, and ``annotations`` with ``image_id`` and ``segmentation`` (RLE or polygons). An
    image may have any number of annotations, also none, and they may overlap. Further entries are
    not looked at. Images are told by their names, so that the ids may be the segmenter's own.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or an entry is missing or of another kind.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        images, annotations = read_tables(path, IMAGE, ANNOTATION)
        self.sizes: dict[str, tuple[int, int]] = {}
        self._segmentations: dict[str, list] = {}
        names = {}
        for image in images:
            name = os.path.basename(image['file_name'])
            if name in self.sizes or image['id'] in names:
                entry = f'{path}: image {image["id"]}'
                raise fault(entry, 'file_name', name, 'a name and an id that no other image has')
            names[image['id']] = name
            self.sizes[name] = image['height'], image['width']
            self._segmentations[name] = []
        for annotation in annotations:
            self._segmentations[names[annotation['image_id']]].append(annotation['segmentation'])

    def check(self, images: Sequence[LabelledImage]) -> None:
        """Refuse the proposals of other images, and those that are no masks of theirs.

        Args:
            images: Those that proposals are needed for.

        Raises:
            ValueError: The file lacks some of them, they were of another size, or a segmentation is
                damaged or empty.
        """
        missing = [one.file_name for one in images if _name(one) not in self.sizes]
        if missing:
            raise ValueError(
                f'{self.path} lacks {len(missing)} of {len(images)} images, the first: '
                f'{missing[0]}. Is it of other data?'
            )
        for one in images:
            height, width = self.sizes[_name(one)]
            if (height, width) != (one.height, one.width):
                raise ValueError(
                    f'{self.path}: {one.file_name} has {width}x{height} pixels there, '
                    f'{one.width}x{one.height} here'
                )
            for number, segmentation in enumerate(self._segmentations[_name(one)]):
                entry = f'{self.path}: proposal {number} of {one.file_name}'
                clean_segmentation(segmentation, height, width, entry)

    def of(self, image: LabelledImage) -> Proposals:
        """Return the proposals of an image."""
        return Proposals(self._segmentations[_name(image)], (image.height, image.width))


@dataclass(frozen=True)
class Proposals:
    """The proposals of one image.

    Args:
        segmentations: RLE or polygons.
        shape: Height and width of the image.
    """

    segmentations: list
    shape: tuple[int, int]

    @cached_property
    def masks(self) -> list[np.ndarray]:
        """The proposals decoded, ``(H, W)`` bool."""
        return [decode_segmentation(one, *self.shape).astype(bool) for one in self.segmentations]

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
