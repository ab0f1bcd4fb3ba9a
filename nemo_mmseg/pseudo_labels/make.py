"""From response maps to files: confidence labels for the affinity network, and pseudo masks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS

from nemo_mmseg.datasets import BaseReferringDataset
from nemo_mmseg.datasets.transforms.loading import read_image
from nemo_mmseg.models.affinity.edge_displacement_net import EdgeDisplacementNet
from nemo_mmseg.utils.atomic_write import check_file_path
from nemo_mmseg.utils.digests import digest_of_weights
from nemo_mmseg.utils.rle import encode_mask

from .annotations import (
    LabelledImage,
    LabelledObject,
    annotation_of,
    images_of,
    write_annotations,
)
from .confidence import UNKNOWN, ConfidenceSettings, confidence_labels
from .parallel import in_processes
from .parts import in_parts
from .proposals import ProposalFile, Proposals
from .refine import Refiner, RefineSettings
from .response_maps import name_and_digest


class Responses(Protocol):
    """Response maps of references, as :class:`~.response_maps.ResponseMaps` reads them."""

    metadata: Mapping[str, Any]

    def __contains__(self, ref_id: int) -> bool:
        """Tell whether there is a map of a reference."""

    def response(self, ref_id: int, shape: Sequence[int]) -> np.ndarray:
        """Return the map of a reference, ``shape`` float32, 0 to 1."""


@dataclass(frozen=True)
class Made:
    """What was written.

    Args:
        labelled: References that have a label.
        without_map: Ids of those that have no response map.
        without_mask: Ids of those whose mask is empty.
    """

    labelled: int
    without_map: tuple[int, ...]
    without_mask: tuple[int, ...]

    def __str__(self) -> str:
        lines = [f'references labelled: {self.labelled}']
        for ids, what in ((self.without_map, 'response map'), (self.without_mask, 'mask')):
            if ids:
                shown = ', '.join(map(str, ids[:10])) + ', ...' * (len(ids) > 10)
                lines.append(f'references without a {what}: {len(ids)} ({shown})')
        return '\n'.join(lines)


@dataclass(frozen=True)
class _Job:
    """An image, its objects that have a response map, and what their masks are made of."""

    image: LabelledImage
    objects: tuple[LabelledObject, ...]
    responses: np.ndarray  # (N, H, W) float32
    settings: Any
    maps: tuple[np.ndarray, np.ndarray] | None = None  # edges and displacements
    proposals: Proposals | None = None


def data_set_of(cfg: Config, split: str, pipeline: Sequence[dict] = ()) -> BaseReferringDataset:
    """Build a split of a config's test data set for the labelling of its references.

    Args:
        cfg: The config.
        split: The split that has response maps, or gets them.
        pipeline: Transforms of its images. Defaults to none: no mask is decoded.

    Returns:
        The data set, grouped by images.

    Raises:
        ValueError: The data set is a wrapper, or has no such split.
    """
    settings = dict(cfg.test_dataloader.dataset)
    if 'split' not in settings:
        raise ValueError(
            'response maps and pseudo labels need a test data set with a split, and no wrapper'
        )
    return DATASETS.build(
        {**settings, 'split': split, 'group_by': 'image', 'pipeline': list(pipeline)}
    )


def make_confidence_labels(
    dataset: BaseReferringDataset,
    responses: Responses,
    path: str | os.PathLike,
    settings: ConfidenceSettings | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Made:
    """Write the labels that the affinity network learns from.

    The file is an annotation file whose segmentations are what is surely on the object; ``unknown``
    is a second one, of what is neither on it nor beside it.

    Args:
        dataset: The references; those of one annotation get one label, of the mean of their maps.
        responses: Their response maps.
        path: File to write. Parts lie in ``<path>.work-...`` until it is whole; a run that was
            killed goes on with them.
        settings: Thresholds and CRF. Defaults to those of TRIS.
        workers: Processes; 0 for this one alone.
        progress: Whether to show a progress bar.

    Returns:
        What was written.

    Raises:
        ValueError: A reference has several targets, or an image is damaged.
        ImportError: The chosen CRF library is missing.
    """
    settings = settings or ConfidenceSettings()
    images = images_of(dataset)
    info = _info(dataset, responses, 'confidence labels of response maps', settings)

    def make(some: Sequence[LabelledImage]) -> Iterator[list[dict]]:
        return in_processes(_confident, _jobs(some, responses, settings), workers)

    return _write(images, make, Path(path), info, None, progress)


def make_masks(
    dataset: BaseReferringDataset,
    responses: Responses,
    path: str | os.PathLike,
    network: EdgeDisplacementNet | None = None,
    proposals: ProposalFile | None = None,
    settings: RefineSettings | None = None,
    sources: Mapping[str, Any] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Made:
    """Write an annotation file of pseudo masks.

    With a network alone, masks are the response maps that it refines; with proposals alone, those
    that the maps choose; with both, those that the refined masks choose.

    Args:
        dataset: The references; those of one annotation get one mask, of the mean of their maps.
        responses: Their response maps.
        path: File to write, see :func:`make_confidence_labels`. References without a mask are
            missing in it, and listed in its ``info``.
        network: Trained affinity network, on the device that shall run it.
        proposals: Masks to choose from.
        settings: Of the refinement. Defaults to the mended ones.
        sources: What else the file's ``info`` shall tell of its making: the network's checkpoint.
        workers: Processes; 0 for this one alone. The network runs in this one in any case.
        progress: Whether to show a progress bar.

    Returns:
        What was written.

    Raises:
        ValueError: There is neither network nor proposals, the proposals are of other images, a
            reference has several targets, or an image is damaged.
    """
    if network is None and proposals is None:
        raise ValueError('masks need an affinity network, proposals or both')
    settings = settings or RefineSettings()
    images = images_of(dataset)
    if proposals is not None:
        proposals.check(images)
    info = _info(dataset, responses, 'pseudo masks of response maps', settings)
    info.update(sources or {})
    if proposals is not None:
        info['proposals'] = name_and_digest(proposals.path)
    weights = None if network is None else digest_of_weights(network)

    def make(some: Sequence[LabelledImage]) -> Iterator[list[dict]]:
        jobs = _jobs(some, responses, settings, network, proposals)
        return in_processes(_masked, jobs, workers)

    return _write(images, make, Path(path), info, weights, progress, True)


def _info(dataset: BaseReferringDataset, responses: Responses, what: str, settings: Any) -> dict:
    return dict(
        description=what,
        dataset=dataset.metainfo.get('dataset_name'),
        split=dataset.split,
        fingerprint=dataset.fingerprint,
        response_maps=dict(responses.metadata),
        settings=asdict(settings),
    )


def _jobs(
    images: Iterable[LabelledImage],
    responses: Responses,
    settings: Any,
    network: EdgeDisplacementNet | None = None,
    proposals: ProposalFile | None = None,
) -> Iterator[_Job]:
    for image in images:
        shape = image.height, image.width
        objects, maps = [], []
        for target in image.objects:
            of_object = [responses.response(r, shape) for r in target.ref_ids if r in responses]
            if of_object:
                objects.append(target)
                maps.append(np.mean(of_object, axis=0))
        if objects:
            yield _Job(
                image,
                tuple(objects),
                np.stack(maps).astype(np.float32),
                settings,
                None if network is None else predict_maps(network, _read(image)),
                None if proposals is None else proposals.of(image),
            )


def _read(image: LabelledImage) -> np.ndarray:
    return read_image(image.path, image.height, image.width)


def predict_maps(network: EdgeDisplacementNet, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predict edges and displacements of an image.

    Args:
        network: In evaluation mode.
        image: ``(H, W, 3)`` uint8, BGR.

    Returns:
        Edges ``(h, w)`` and displacements ``(2, h, w)``, float32.
    """
    inputs = [torch.from_numpy(image.transpose(2, 0, 1).copy())]
    inputs = network.data_preprocessor(dict(inputs=inputs))['inputs']
    edge, displacement = network.predict(inputs)
    return edge[0].float().cpu().numpy(), displacement[0].float().cpu().numpy()


def _confident(job: _Job) -> list[dict]:
    """Label the objects of an image."""
    image = np.ascontiguousarray(_read(job.image)[..., ::-1])
    labels = confidence_labels(image, job.responses, job.settings)
    annotations = []
    for target, label in zip(job.objects, labels):
        unknown = label == UNKNOWN
        rle = encode_mask(unknown) if unknown.any() else None
        annotations.append(dict(annotation_of(job.image, target, label == 1), unknown=rle))
    return annotations


def _masked(job: _Job) -> list[dict]:
    """Find the masks of the objects of an image, some of which may be empty."""
    refiner = None if job.maps is None else Refiner(*job.maps, job.settings)
    annotations = []
    for target, response in zip(job.objects, job.responses):
        mask, scores = response, {}
        if refiner is not None:
            mask = refiner.parts(response).union
        if job.proposals is not None:
            mask, scores['overlap'] = job.proposals.choose(mask.astype(np.float32))
        annotations.append(dict(annotation_of(job.image, target, mask), **scores))
    return annotations


def _write(
    images: Sequence[LabelledImage],
    make: Callable[[Sequence[LabelledImage]], Iterable[list[dict]]],
    path: Path,
    info: dict,
    weights: str | None,
    progress: bool,
    leave_out_empty: bool = False,
) -> Made:
    """Write the annotations that come of the images, and tell which references have none."""
    check_file_path(path)
    made_with = json.dumps([info, weights], sort_keys=True)
    digest = hashlib.sha256(made_with.encode()).hexdigest()
    work = path.with_name(f'{path.name}.work-{digest[:12]}')
    found = in_parts(images, make, work, info['description'], progress)
    kept = [one for one in found if one['area'] or not leave_out_empty]
    ref_ids = {one.ann_id: one.ref_ids for image in images for one in image.objects}

    def references(ann_ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(ref_id for ann_id in sorted(ann_ids) for ref_id in ref_ids[ann_id])

    with_map, with_mask = {one['id'] for one in found}, {one['id'] for one in kept}
    made = Made(
        labelled=len(references(with_mask)),
        without_map=references(ref_ids.keys() - with_map),
        without_mask=references(with_map - with_mask),
    )
    missing = dict(without_map=made.without_map, without_mask=made.without_mask)
    write_annotations(path, images, kept, dict(info, **missing))
    shutil.rmtree(work, ignore_errors=True)
    return made
