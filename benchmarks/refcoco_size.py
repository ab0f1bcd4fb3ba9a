"""Annotations of RefCOCO's size without RefCOCO: files of the same layout, of random content."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np

IMAGES, INSTANCES, EXPRESSIONS = 19_994, 196_771, 142_209
SPLITS = dict(train=42_404, val=3_811, testA=1_975, testB=1_810)  # references
WORDS = 'man woman dog left right red blue the in of on with chair shirt second bowl'.split()
WIDTH, HEIGHT = 640, 480


def write_refcoco_size(folder: Path, share: float = 1.0, seed: int = 0) -> dict[str, int]:
    """Write ``refcoco/instances.json`` and ``refcoco/refs(unc).p``, without images.

    The numbers of images, instances, references and expressions are RefCOCO's; polygons have 40
    points on average, one instance of ten has two of them, and one of a hundred is a crowd with run
    lengths, which makes a file of about 160 MB.

    Args:
        folder: Where the folder ``refcoco`` is made.
        share: Of RefCOCO's numbers, 0 to 1.
        seed: Of the content.

    Returns:
        The numbers: images, instances, references, expressions.
    """
    rng = np.random.default_rng(seed)
    images = max(int(IMAGES * share), 4)
    instances = max(int(INSTANCES * share), images)
    splits = {split: max(int(count * share), 1) for split, count in SPLITS.items()}
    references = sum(splits.values())
    expressions = max(int(EXPRESSIONS * share), references)
    of_image = np.concatenate([np.arange(images), rng.integers(0, images, instances - images)])
    folder = folder / 'refcoco'
    folder.mkdir(parents=True, exist_ok=True)
    names = [f'COCO_train2014_{i:012d}.jpg' for i in range(images)]
    tables = dict(
        images=[
            dict(id=i, file_name=name, height=HEIGHT, width=WIDTH, license=1, flickr_url='-' * 60)
            for i, name in enumerate(names)
        ],
        categories=[dict(id=i, name=f'category {i}') for i in range(1, 81)],
        annotations=[_annotation(i, int(image), rng) for i, image in enumerate(of_image.tolist())],
    )
    (folder / 'instances.json').write_text(json.dumps(tables))
    described = rng.choice(instances, references, replace=False)
    # every reference has an expression, and one more as often as the total asks for
    counts = 1 + np.bincount(
        rng.integers(0, references, expressions - references), minlength=references
    )
    refs, sent_id = [], 0
    for ref_id, split in enumerate(np.repeat(list(splits), list(splits.values())).tolist()):
        sentences = []
        for _ in range(counts[ref_id]):
            words = rng.choice(WORDS, rng.integers(1, 7)).tolist()
            text = ' '.join(words)
            sentences.append(dict(tokens=words, raw=text.title(), sent_id=sent_id, sent=text))
            sent_id += 1
        instance = int(described[ref_id])
        image = int(of_image[instance])
        refs.append(
            dict(
                sent_ids=[sentence['sent_id'] for sentence in sentences],
                file_name=names[image].replace('.jpg', f'_{instance}.jpg'),
                ann_id=instance,
                ref_id=ref_id,
                image_id=image,
                split=split,
                sentences=sentences,
                category_id=tables['annotations'][instance]['category_id'],
            )
        )
    (folder / 'refs(unc).p').write_bytes(pickle.dumps(refs, protocol=2))
    return dict(images=images, instances=instances, references=references, expressions=sent_id)


def _annotation(number: int, image: int, rng: np.random.Generator) -> dict:
    """Make an entry of ``instances.json``."""
    if number % 100 == 99:
        runs = rng.integers(1, 200, 120)
        counts = [*runs.tolist(), WIDTH * HEIGHT - int(runs.sum())]
        segmentation: dict | list = dict(counts=counts, size=[HEIGHT, WIDTH])
    else:
        points = 3 + rng.poisson(37, 2 if number % 10 == 9 else 1)
        segmentation = [
            np.round(rng.random(2 * count) * np.tile((WIDTH, HEIGHT), count), 2).tolist()
            for count in points
        ]
    box = np.round(rng.random(4) * (WIDTH / 2, HEIGHT / 2, WIDTH / 2, HEIGHT / 2), 2).tolist()
    return dict(
        segmentation=segmentation,
        area=round(box[2] * box[3] / 2, 4),
        iscrowd=int(number % 100 == 99),
        image_id=image,
        bbox=box,
        category_id=int(rng.integers(1, 81)),
        id=number,
    )
