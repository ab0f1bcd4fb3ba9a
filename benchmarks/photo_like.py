"""A data set in RefCOCO's layout that costs a loader what COCO does, for ``loader.py``.

Pictures are noise with the spectrum of photographs (amplitude falls with the frequency), textured
blobs and grain, as JPEGs of COCO's size and weight: 640x480, about 130 KB, 70 % of them with half
the colour resolution. Nothing can be learnt from them.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np

from nemo_mmseg.datasets.base import BaseReferringDataset
from nemo_mmseg.mining.bank_writer import BankWriter

HEIGHT, WIDTH = 480, 640
WORDS = 'a the red blue large small woman man dog tree table under near behind of with'.split()


def picture(rng: np.random.Generator) -> np.ndarray:
    """Draw a picture ``(480, 640, 3)`` uint8."""
    y, x = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    falling = 1 / np.maximum(np.hypot(y, x), 1 / WIDTH) ** 1.15
    noise = np.fft.rfft2(rng.standard_normal((3, HEIGHT, WIDTH))) * falling
    layers = np.fft.irfft2(noise, s=(HEIGHT, WIDTH))
    layers = layers / layers.std(axis=(1, 2), keepdims=True)
    # Colours of photographs go together.
    image = (0.8 * layers[:1] + 0.35 * layers).transpose(1, 2, 0) * 50 + 120
    image = np.ascontiguousarray(image)
    for _ in range(12):
        centre = rng.integers(0, (WIDTH, HEIGHT)).tolist()
        axes, colour = rng.integers(10, 90, 2).tolist(), rng.normal(0, 35, 3)
        blob = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(blob, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        image[blob == 1] += colour + 8 * rng.standard_normal((np.count_nonzero(blob), 1))
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """Encode a picture at the quality that comes closest to COCO's weight."""
    half = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    sampling = half[int(rng.random() > 0.7)]
    wanted, best = rng.normal(134_000, 25_000), b''
    for quality in range(60, 98, 3):
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        content = cv2.imencode('.jpg', image, options)[1].tobytes()
        if not best or abs(len(content) - wanted) < abs(len(best) - wanted):
            best = content
    return best


def polygon(rng: np.random.Generator) -> list[float]:
    """Draw an outline of about thirty corners, as COCO's objects have."""
    angles = np.linspace(0, 2 * np.pi, int(rng.integers(20, 45)), endpoint=False)
    radius = rng.uniform(40, 120) * (1 + 0.2 * rng.standard_normal(len(angles)).cumsum() / 5)
    x = rng.uniform(120, WIDTH - 120) + radius * np.cos(angles)
    y = rng.uniform(120, HEIGHT - 120) + radius * np.sin(angles)
    points = np.stack([x.clip(0, WIDTH - 1), y.clip(0, HEIGHT - 1)], axis=1)
    return points.round(2).ravel().tolist()


def make(root: str | os.PathLike, images: int = 128, seed: int = 0) -> None:
    """Write pictures and annotations.

    Args:
        root: Folder to write into.
        images: Number of pictures.
        seed: Seed of everything.
    """
    rng, root = np.random.default_rng(seed), Path(root)
    for folder in ('images', 'mini'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    records, annotations, references = [], [], []
    for number in range(images):
        name = f'COCO_train2014_{number:012d}.jpg'
        (root / 'images' / name).write_bytes(jpeg(picture(rng), rng))
        records.append(dict(id=number, file_name=name, height=HEIGHT, width=WIDTH))
        for ann_id in (2 * number, 2 * number + 1):
            outline = [polygon(rng) for _ in range(int(rng.integers(1, 3)))]
            annotations.append(
                dict(id=ann_id, image_id=number, category_id=1, segmentation=outline, iscrowd=0)
                | dict(bbox=[0, 0, 1, 1], area=1000.0)
            )
            expressions = [' '.join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(3)]
            sentences = [
                dict(sent_id=3 * ann_id + i, sent=text, raw=text, tokens=text.split())
                for i, text in enumerate(expressions)
            ]
            references.append(
                dict(ref_id=ann_id, ann_id=ann_id, image_id=number, category_id=1, split='train')
                | dict(sentences=sentences, sent_ids=[s['sent_id'] for s in sentences])
                | dict(file_name=name)
            )
    instances = dict(images=records, annotations=annotations, categories=[dict(id=1, name='thing')])
    (root / 'mini' / 'instances.json').write_text(json.dumps(instances))
    (root / 'mini' / 'refs(unc).p').write_bytes(pickle.dumps(references, protocol=2))


def config(root: str | os.PathLike) -> dict:
    """Return the config of the data set in a folder, without pipeline."""
    return dict(
        type='RefCOCODataset',
        data_root=str(root),
        ann_file='mini/instances.json',
        split_file='mini/refs(unc).p',
        split='train',
        data_prefix=dict(img_path='images'),
    )


def write_bank(dataset: BaseReferringDataset, path: str | os.PathLike, keep: int = 100) -> None:
    """Write a bank of random neighbours.

    Args:
        dataset: The data set.
        path: File to write.
        keep: Images stored per expression, at most all others.
    """
    sent_ids, _, own = dataset.expressions()
    pool, every, rng = dataset.pool, np.arange(len(own)), np.random.default_rng(5)
    similarities = rng.uniform(0.1, 0.3, (len(every), len(pool)))
    similarities[every, own] = -1
    keep = min(keep, len(pool) - 1)
    order = np.argsort(-similarities, axis=1)[:, :keep]
    metadata = dict(fingerprint=dataset.fingerprint, dataset='photo-like', split='train')
    with BankWriter(
        path, sent_ids, own, pool.ids, list(pool.names), np.zeros((len(pool), 2)), keep, metadata
    ) as bank:
        bank.write(
            every, order, np.take_along_axis(similarities, order, axis=1), np.full(len(every), 0.35)
        )
