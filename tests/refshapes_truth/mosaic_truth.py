"""What RefShapes' scene graphs say of the mosaics that NeMo makes."""

from __future__ import annotations

import os.path as osp

import numpy as np
from refshapes_truth.group_truth import targets_of
from refshapes_truth.scenes import load_scenes

from nemo_mmseg.datasets.base import BaseReferringDataset
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.transforms.nemo import NeMoMosaic


def mosaic_truth(
    dataset: BaseReferringDataset, mosaic: NeMoMosaic, num: int = 4000, seed: int = 0
) -> dict[str, float]:
    """Plan mosaics as training does, and look the negatives up in the scene graphs.

    Args:
        dataset: RefShapes, grouped by reference, with ``mosaic`` in its pipeline.
        mosaic: Of which at least one sample in ``num`` is mined.
        num: Number of samples.
        seed: Seed of the samples.

    Returns:
        Shares: ``mined_share`` of the samples; ``also_true`` of the mined mosaics (the expression
        describes, in a generous reading, an object in another cell); ``category_mined`` of the
        single negatives (they show a category of the targets; no-target expressions are left
        out); ``category_random``, the same for images drawn from the pool; ``category_ratio`` of
        the two.
    """
    scenes = load_scenes(dataset.split_file)
    by_name = {f'COCO_train2014_{key:012d}.jpg': scene for key, scene in scenes.items()}
    shown = {
        name: {thing['category'] for thing in by_name[name]['objects']}
        for name in map(str, dataset.pool.names)
    }
    transforms = dataset.pipeline.transforms
    before = transforms[: transforms.index(mosaic)]
    also_true, category_mined, category_random = [], [], []
    for count in range(num):
        epoch, index = divmod(count, len(dataset))
        sample = SampleIndex(index, mosaic.schedule.start_epoch + epoch, seed)
        rng = sample.generator()
        rng.integers(2**32)  # the draw that seeds the global state of a sample
        results = dataset.get_data_info(index)
        results.update(rng=rng, epoch=sample.epoch, pool=dataset.pool)
        for transform in before:
            results = transform(results)
        if mosaic.schedule.kind(sample.epoch, rng.random()) != 'mined':
            continue
        names = mosaic.plan('mined', results, rng).names
        (expression,), (targets,) = results['expressions'], results['targets']
        also_true.append(
            any(
                targets_of(expression, scene['objects'], scene['width'], scene['height'])
                for scene in map(by_name.get, names)
            )
        )
        ann_ids = {results['instances'][target]['ann_id'] for target in targets}
        objects = by_name[osp.basename(results['img_path'])]['objects']
        wanted = {thing['category'] for thing in objects if thing['ann_id'] in ann_ids}
        if wanted:
            category_mined += [bool(wanted & shown[name]) for name in names]
            category_random.append(np.mean([bool(wanted & seen) for seen in shown.values()]))
    mined, random = float(np.mean(category_mined)), float(np.mean(category_random))
    return dict(
        samples=num,
        mined_share=len(also_true) / num,
        also_true=float(np.mean(also_true)),
        category_mined=mined,
        category_random=random,
        category_ratio=mined / random,
    )
