"""What RefShapes' scene graphs say of the mosaics that a mosaic transform makes."""

from __future__ import annotations

import json
import os.path as osp
from typing import Any

import numpy as np
from refshapes_truth.group_truth import targets_of

from nemo_mmseg.datasets.samplers import SampleIndex


def load_scenes(split_file: str) -> tuple[dict[int, dict], dict[str, list]]:
    """The scene graphs beside a flavour's references.

    Args:
        split_file: ``.../refshapes+/refs(unc).p`` or ``.../grefshapes/grefs(unc).json``.

    Returns:
        Scene by image id, and the arguments ``objects, width, height`` of :func:`targets_of` by
        file name.
    """
    with open(osp.join(osp.dirname(split_file), 'scenes.json')) as file:
        scenes = {int(key): scene for key, scene in json.load(file)['scenes'].items()}
    by_name = {
        f'COCO_train2014_{key:012d}.jpg': [scene['objects'], scene['width'], scene['height']]
        for key, scene in scenes.items()
    }
    return scenes, by_name


def mosaic_truth(dataset: Any, mosaic: Any, num: int = 4000, seed: int = 0) -> dict[str, float]:
    """Plan mosaics as training does, and look the negatives up in the scene graphs.

    Args:
        dataset: A ``RefCOCODataset`` or ``GRefCOCODataset`` of RefShapes, grouped by reference,
            with ``SampleExpressions`` before ``mosaic`` in its pipeline.
        mosaic: Its ``NeMoMosaic``.
        num: Samples looked at. Defaults to 4000.
        seed: Seed of the samples. Defaults to 0.

    Returns:
        Shares: ``mined_share`` of the samples; ``also_true`` of the mined mosaics (the expression
        describes, in a generous reading, an object in another cell); ``category_mined`` of the
        single negatives (they show a category of the referents; expressions of nothing have none);
        ``category_random``, the same for an image drawn from the pool; ``category_ratio`` of the
        two.
    """
    _, by_name = load_scenes(dataset.split_file)
    transforms = dataset.pipeline.transforms
    before = transforms[: transforms.index(mosaic)]
    shown = [{thing['category'] for thing in by_name[str(n)][0]} for n in dataset.pool.names]
    mined, also_true, category_mined, category_random = 0, 0, [], []
    shares: dict[frozenset, float] = {}  # of the pool's images that show one of the categories
    for count in range(num):
        epoch, index = divmod(count, len(dataset))
        sample = SampleIndex(index, mosaic.schedule.start_epoch + epoch, seed)
        generator = sample.generator()
        generator.integers(2**32)  # the draw that seeds the global state of a real sample
        results = dataset.get_data_info(index)
        results.update(rng=generator, epoch=sample.epoch, pool=dataset.pool)
        for transform in before:
            results = transform(results)
        if mosaic.schedule.kind_at(sample.epoch, generator.random()) != 'mined':
            continue
        plan = mosaic.plan('mined', results, generator)
        mined += 1
        expression = results['expressions'][0]
        also_true += any(targets_of(expression, *by_name[name]) for name in plan.names)
        wanted = _categories(by_name, results)
        if not wanted:
            continue
        category_mined += [
            any(thing['category'] in wanted for thing in by_name[name][0]) for name in plan.names
        ]
        if wanted not in shares:
            shares[wanted] = float(np.mean([bool(wanted & categories) for categories in shown]))
        category_random.append(shares[wanted])
    if not mined:
        raise ValueError(
            'the mosaic mines nothing: mined_prob is 0, or start_epoch was not reached'
        )
    random_share = float(np.mean(category_random))
    return dict(
        samples=num,
        mined_share=mined / num,
        also_true=also_true / mined,
        category_mined=float(np.mean(category_mined)),
        category_random=random_share,
        category_ratio=float(np.mean(category_mined)) / random_share,
    )


def _categories(by_name: dict[str, list], results: dict) -> frozenset[str]:
    """Categories of the targets of the item's expression."""
    own = {results['instances'][target]['ann_id'] for target in results['targets'][0]}
    name = osp.basename(results['img_path'])
    return frozenset(o['category'] for o in by_name[name][0] if o['ann_id'] in own)
