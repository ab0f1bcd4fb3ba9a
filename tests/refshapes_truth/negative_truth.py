"""How often is a negative true after all? RefShapes' scene graphs know."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from refshapes_truth.group_truth import targets_of
from refshapes_truth.scenes import load_scenes

from nemo_mmseg.datasets.base import BaseReferringDataset, ItemView
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.transforms import (
    NeMoMosaic,
    ReplaceByNegativeExpression,
    SampleExpressions,
)


class Share(NamedTuple):
    """How many negatives are true.

    Attributes:
        negatives: Their number.
        generous: Share of those that somebody might call true.
        strict: Share of those that everybody would call true.
    """

    negatives: int
    generous: float
    strict: float


def samples_of(
    dataset: BaseReferringDataset, num: int, seed: int
) -> Iterator[tuple[dict, np.random.Generator]]:
    """Yield items with one expression, and the generators that draw their negatives."""
    sample = SampleExpressions(num=1)
    for count in range(num):
        epoch, index = divmod(count, len(dataset))
        rng = SampleIndex(index, epoch, seed).generator()
        shared = dict(rng=rng, epoch=epoch, pool=dataset.pool, items=ItemView(dataset))
        yield sample(dict(dataset.get_data_info(index), **shared)), rng


def share_of_images(
    dataset: BaseReferringDataset, mosaic: NeMoMosaic, kind: str, num: int, seed: int = 0
) -> Share:
    """Count negative images that show what the expression describes.

    Args:
        dataset: RefShapes.
        mosaic: Its mosaics.
        kind: ``'mined'`` or ``'random'``.
        num: Number of mosaics.
        seed: Seed of the samples.
    """
    pairs = (
        (results['expressions'][0], name)
        for results, rng in samples_of(dataset, num, seed)
        for name in mosaic.plan(kind, results, rng).names
    )
    return _share(dataset, pairs)


def share_of_expressions(
    dataset: BaseReferringDataset,
    transform: ReplaceByNegativeExpression,
    kind: str,
    num: int,
    seed: int = 0,
) -> Share:
    """Count negative expressions that describe something in the image.

    Args:
        dataset: RefShapes.
        transform: What replaces expressions.
        kind: ``'mined'`` or ``'random'``.
        num: Number of samples; those without a target are passed over.
        seed: Seed of the samples.
    """
    draw = transform.draw_mined if kind == 'mined' else transform.draw_random
    drawn = (
        (draw(results, rng), osp.basename(results['img_path']))
        for results, rng in samples_of(dataset, num, seed)
        if results['targets'][0]
    )
    return _share(dataset, ((new.text, name) for new, name in drawn if new is not None))


def _share(dataset: BaseReferringDataset, pairs: Iterable[tuple[str, str]]) -> Share:
    """Look expressions up in the scenes of the images that they come with."""
    scenes = load_scenes(dataset.split_file)
    by_name = {f'COCO_train2014_{key:012d}.jpg': scene for key, scene in scenes.items()}
    true = []
    for text, name in pairs:
        scene = by_name[name]
        place = scene['objects'], scene['width'], scene['height']
        true.append([bool(targets_of(text, *place, reader)) for reader in ('generous', 'strict')])
    return Share(len(true), *np.mean(true, axis=0).tolist() if true else (0.0, 0.0))
