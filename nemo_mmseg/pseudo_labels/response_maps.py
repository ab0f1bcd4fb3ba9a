"""Response maps of the references of a data set, in one compact file.

A response map says for each place of an image how well it fits a reference. It is stored as the
network computes it: at the network's resolution, before it is resized and cut at 0. A map of 10 x
10 values takes 244 bytes. So the 42,404 references of RefCOCO's train split take 10 MB in one file
(the published code writes a float32 file in the size of the image for each of them, about 50 GB).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_mmseg.utils.atomic_write import write_bytes
from nemo_mmseg.utils.digests import digest_of_file
from nemo_mmseg.utils.tensor_file import MappedFile, checksum_text, header_of

FORMAT_VERSION = 1
# By falling size of an element, so that each array is aligned.
ARRAYS = ('ref_ids', 'sent_ids', 'offsets', 'shapes', 'input_shapes', 'scales', 'values')


class ResponseMapError(ValueError):
    """A file of response maps is damaged, or belongs to something else."""


@dataclass(frozen=True)
class ResponseMap:
    """The map of one reference.

    Attributes:
        ref_id: The reference.
        sent_id: The expression that the map was chosen from; -1 for a mean of several.
        scores: ``(h, w)`` float32, at the resolution of the network. Above 0 is foreground.
        input_shape: Height and width of the network's input, in pixels.
    """

    ref_id: int
    sent_id: int
    scores: np.ndarray
    input_shape: tuple[int, int]


def resize_response(scores: Tensor, input_shape: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Resize scores to an image and scale them to 0..1, as published with TRIS.

    Bilinear to the input of the network (``align_corners=False``), negative values cut, bilinear to
    the image (``align_corners=True``), divided by the maximum + 1e-5. The cut lies between the two
    resizes: before the first one it would change the map by a fifth.

    Args:
        scores: ``(N, h, w)``, of images that were stretched to the input.
        input_shape: Height and width of the network's input.
        shape: Height and width of the image.

    Returns:
        ``(N, *shape)``, 0..1. All zeros where no score is positive.
    """
    maps = F.interpolate(scores[:, None], tuple(input_shape), mode='bilinear', align_corners=False)
    maps = F.interpolate(maps.relu(), tuple(shape), mode='bilinear', align_corners=True)[:, 0]
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-5)


class ResponseMaps(MappedFile):
    """Reader of a file of response maps.

    >>> maps = ResponseMaps('work_dirs/tris/maps.safetensors')
    >>> maps.check(dataset)  # refuses the maps of other data
    >>> maps.map_of(ref_id).shape  # the network's own scores
    (10, 10)
    >>> maps.response(ref_id, (480, 640)).max()  # resized to the image, 0..1
    0.99999

    The file is mapped at first use; worker processes share its pages. ``metadata`` holds

    - ``dataset``, ``split`` and ``fingerprint`` of the data set;
    - ``checkpoint``: name and SHA-256 of the file of the network's weights;
    - ``selection``: how the map of a reference was made of those of its expressions.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: At first use, if there is no such file.
        ResponseMapError: At first use, if it is damaged or another kind of file.
    """

    KIND = 'file of response maps'
    FORMATS = {FORMAT_VERSION: ARRAYS}
    CHECKED_FROM = FORMAT_VERSION
    MAKE_COMMAND = 'python tools/pseudo_labels/make_response_maps.py CONFIG CHECKPOINT'
    MADE_BY_TRAINING = False
    ERROR = ResponseMapError

    def __len__(self) -> int:
        return len(self.arrays['ref_ids'])

    def __contains__(self, ref_id: int) -> bool:
        return int(ref_id) in self._rows

    @property
    def ref_ids(self) -> np.ndarray:
        """The references that have a map, ``(R,)`` int64, in the order of the data set."""
        return self.arrays['ref_ids']

    @cached_property
    def _rows(self) -> dict[int, int]:
        return {ref_id: row for row, ref_id in enumerate(self.ref_ids.tolist())}

    def record(self, ref_id: int) -> ResponseMap:
        """Return all that is stored of a reference.

        Raises:
            ResponseMapError: The file has no map of this reference.
        """
        if ref_id not in self:
            raise ResponseMapError(
                f'{self.path} has no map of reference {ref_id}; it has {len(self)} references of '
                f'{self.metadata["dataset"]!r}, split {self.metadata["split"]!r}'
            )
        row, arrays = self._rows[int(ref_id)], self.arrays
        begin, end = arrays['offsets'][row : row + 2].tolist()
        scores = arrays['values'][begin:end].astype(np.float32) * arrays['scales'][row]
        return ResponseMap(
            ref_id=int(ref_id),
            sent_id=int(arrays['sent_ids'][row]),
            scores=scores.reshape(arrays['shapes'][row]),
            input_shape=tuple(arrays['input_shapes'][row].tolist()),
        )

    def map_of(self, ref_id: int) -> np.ndarray:
        """Return the scores ``(h, w)`` float32 of a reference, as the network computed them.

        Raises:
            ResponseMapError: The file has no map of this reference.
        """
        return self.record(ref_id).scores

    def response(self, ref_id: int, shape: Sequence[int]) -> np.ndarray:
        """Return the map of a reference at the size of its image.

        Args:
            ref_id: The reference.
            shape: Height and width of the image.

        Returns:
            ``shape``, float32, 0..1; see :func:`resize_response`.

        Raises:
            ResponseMapError: The file has no map of this reference.
        """
        record = self.record(ref_id)
        scores = torch.from_numpy(record.scores)[None]
        return resize_response(scores, record.input_shape, shape)[0].numpy()

    def check(self, dataset: Any, checkpoint: dict[str, str] | None = None) -> None:
        """Refuse maps that were made for something else.

        Args:
            dataset: The referring data set (any grouping) whose references are looked up.
            checkpoint: ``dict(name=..., sha256=...)`` of the network that the maps must be of; None
                accepts any.

        Raises:
            ResponseMapError: The maps are of other data, of another checkpoint, or damaged.
        """
        made, name = self.metadata, dataset.metainfo.get('dataset_name')
        if made['fingerprint'] != dataset.fingerprint:
            raise ResponseMapError(
                f'{self.path} holds maps of {made["dataset"]!r}, split {made["split"]!r}, not of '
                f'{name!r}, split {dataset.split!r}, or the files of the data set have changed '
                'since. Make it again, or name another file'
            )
        if checkpoint is not None and made['checkpoint']['sha256'] != checkpoint['sha256']:
            raise ResponseMapError(
                f'{self.path} holds maps of the checkpoint {made["checkpoint"]["name"]} (SHA-256 '
                f'{made["checkpoint"]["sha256"][:12]}), not of {checkpoint["name"]} '
                f'({checkpoint["sha256"][:12]}). Delete it, or name another file'
            )


def write_response_maps(
    path: str | os.PathLike, records: Sequence[ResponseMap], metadata: dict[str, Any]
) -> None:
    """Write a file of response maps; it has its name only when it is whole.

    Values are stored in units of the largest of their map, as float16: each keeps three digits;
    near 0, those down to 1e-7 of the largest.

    Args:
        path: The file.
        records: The maps, in the order of the data set.
        metadata: See :class:`ResponseMaps`; JSON values.
    """
    scales = np.array([np.abs(one.scores).max(initial=0) for one in records], '<f4')
    scales[scales == 0] = 1
    values = [one.scores.ravel() / scale for one, scale in zip(records, scales)]
    arrays = dict(
        ref_ids=np.array([one.ref_id for one in records], '<i8'),
        sent_ids=np.array([one.sent_id for one in records], '<i8'),
        shapes=np.array([one.scores.shape for one in records], '<i4').reshape(-1, 2),
        input_shapes=np.array([one.input_shape for one in records], '<i4').reshape(-1, 2),
        offsets=np.cumsum([0, *(one.scores.size for one in records)], dtype='<i8'),
        scales=scales,
        values=np.concatenate(values or [np.zeros(0)]).astype('<f2'),
    )
    layout = {name: (arrays[name].dtype, arrays[name].shape) for name in ARRAYS}
    checksums = {name: checksum_text(arrays[name]) for name in ARRAYS}
    header, _ = header_of(layout, dict(metadata, format=FORMAT_VERSION), checksums)
    write_bytes(path, header + b''.join(arrays[name].tobytes() for name in ARRAYS))


def name_and_digest(path: str | os.PathLike) -> dict[str, str]:
    """Return what names a file of weights in the metadata: ``name`` and ``sha256``."""
    return dict(name=Path(path).name, sha256=digest_of_file(path))
