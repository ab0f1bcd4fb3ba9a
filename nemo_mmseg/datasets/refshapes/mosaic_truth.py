"""What RefShapes' scene graphs say of the mosaics that a mosaic transform makes."""

from __future__ import annotations

import json
import os.path as osp
from typing import Any

import numpy as np

from ..sample_index import SampleIndex
from .truth import true_of


def load_scenes(split_file: str) -> tuple[dict[int, dict], dict[str, list]]:
    """The scene graphs beside a flavour's references.

    Args:
        split_file: ``.../refshapes+/refs(unc).p``.

    Returns:
        Scene by image id, and the arguments ``objects, width, height`` of :func:`true_of` by file
        name.
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
        dataset: A ``RefCOCODataset`` of RefShapes, grouped by reference, with ``SampleExpressions``
            before ``mosaic`` in its pipeline.
        mosaic: Its ``NeMoMosaic``.
        num: Samples looked at. Defaults to 4000.
        seed: Seed of the samples. Defaults to 0.

    Returns:
        Shares: ``mined_share`` of the samples; ``also_true`` of the mined mosaics (the expression
        is true, in a generous reading, of an object in another cell); ``category_mined`` of the
        single negatives (they show the referent's category); ``category_random``, the same for an
        image drawn from the pool; ``category_ratio`` of the two.
    """
    _, by_name = load_scenes(dataset.split_file)
    transforms = dataset.pipeline.transforms
    before = transforms[: transforms.index(mosaic)]
    shown = [{thing['category'] for thing in by_name[str(n)][0]} for n in dataset.pool.names]
    mined, also_true, category_mined, category_random = 0, 0, [], []
    shares: dict[str, float] = {}  # of the pool's images that show a category
    for count in range(num):
        visit, index = divmod(count, len(dataset))
        sample = SampleIndex(index, mosaic.start_epoch + visit, seed)
        generator = sample.generator()
        generator.integers(2**32)  # the draw that seeds the global state of a real sample
        results = dataset.get_data_info(index)
        results.update(rng=generator, visit=sample.visit, pool=dataset.pool)
        for transform in before:
            results = transform(results)
        if mosaic.kind_at(sample.visit, generator.random()) != 'mined':
            continue
        plan = mosaic.plan('mined', results, generator)
        mined += 1
        expression = results['expressions'][0]
        also_true += any(true_of(expression, *by_name[name]) for name in plan.names)
        category = _category(by_name, dataset, results)
        category_mined += [
            any(thing['category'] == category for thing in by_name[name][0]) for name in plan.names
        ]
        if category not in shares:
            shares[category] = float(np.mean([category in categories for categories in shown]))
        category_random.append(shares[category])
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


def _category(by_name: dict[str, list], dataset: Any, results: dict) -> str:
    own = results['instances'][results['targets'][0][0]]['ann_id']
    name = osp.basename(results['img_path'])
    return next(o['category'] for o in by_name[name][0] if o['ann_id'] == own)
