"""Writing RefShapes to disk in the layout of RefCOCO, the generalised flavour in gRefCOCO's.

* ``out/train2014/COCO_train2014_000000000000.jpg`` ...;
* ``out/<flavour>/refs(unc).p`` and ``instances.json`` as RefCOCO's, or ``grefs(unc).json`` with
  lists of targets as gRefCOCO's;
* ``out/<flavour>/scenes.json``: scene graphs and meanings of the expressions, for checks only;
* ``out/<flavour>/settings.json``, written last: what made the data.
"""

import json
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from nemo_mmseg.utils.atomic_write import write_bytes

from .sample import make_sample
from .segment import to_coco
from .vocabulary import CATEGORIES, CATEGORY_IDS, DEFAULT_SIZES, FLAVOURS, GENERALIZED, SPLITS

VERSION = 2
# The flavours share one image folder, so their image ids do not meet.
IMAGES_PER_SPLIT = 1_000_000
_OBJECTS_PER_IMAGE = 10
_UNCOMPRESSED_EVERY = 40


def _make_image(job: tuple[str, int], out: str, flavour: str, seed: int) -> dict:
    """Make one image of the set, write its JPEG, and return what the annotation files say of it."""
    cv2.setNumThreads(0)
    split, index = job
    sample = make_sample(seed, flavour, split, index)
    scene = sample.scene
    block = FLAVOURS.index(flavour) * len(SPLITS) + SPLITS.index(split)
    image_id = block * IMAGES_PER_SPLIT + index + 1
    name = f'COCO_train2014_{image_id:012d}.jpg'
    quality = 88 + image_id % 8
    ok, jpeg = cv2.imencode('.jpg', scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError(f'OpenCV cannot encode {name} as JPEG')
    write_bytes(Path(out) / 'train2014' / name, jpeg.tobytes())

    annotations, objects = [], []
    for i, (obj, mask) in enumerate(zip(scene.objects, scene.masks)):
        ann_id = image_id * _OBJECTS_PER_IMAGE + i
        annotations.append(
            {
                'id': ann_id,
                'image_id': image_id,
                'category_id': CATEGORY_IDS[obj.category],
                **to_coco(mask, uncompressed=ann_id % _UNCOMPRESSED_EVERY == 0),
                'iscrowd': 0,
            }
        )
        objects.append({**obj.to_dict(), 'ann_id': ann_id})
    image = {'id': image_id, 'file_name': name, 'width': scene.width, 'height': scene.height}
    return {
        'split': split,
        'image': image,
        'annotations': annotations,
        'objects': objects,
        'references': sample.references,
    }


def _described(targets: int | tuple[int, ...], annotations: list[dict], image_name: str) -> dict:
    """What a reference says of its targets: ``ann_id``, ``category_id`` and ``file_name``."""
    if isinstance(targets, int):
        annotation = annotations[targets]
        stem = image_name.removesuffix('.jpg')
        return {
            'ann_id': annotation['id'],
            'category_id': annotation['category_id'],
            'file_name': f'{stem}_{annotation["id"]}.jpg',
        }
    chosen = [annotations[index] for index in targets]
    return {
        'ann_id': [a['id'] for a in chosen] or [-1],
        'category_id': [a['category_id'] for a in chosen] or [-1],
        'file_name': image_name,
    }


def _run(jobs: list, make, workers: int) -> Iterator[dict]:
    if workers <= 1:
        yield from map(make, jobs)
        return
    # Forked children inherit the imports; results come back in the order of the jobs.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    with multiprocessing.get_context(method).Pool(workers) as pool:
        yield from pool.imap(make, jobs, chunksize=16)


def _check_settings(folder: Path, settings: dict) -> bool:
    """True when the data is there already; an error when it was made otherwise."""
    marker = folder / 'settings.json'
    if not marker.exists():
        return False
    there = json.loads(marker.read_text())
    if there != settings:
        keys = sorted(set(there) | set(settings))
        differences = [k for k in keys if there.get(k) != settings.get(k)]
        shown = ', '.join(
            f'{k}: {there.get(k)} there, {settings.get(k)} asked' for k in differences
        )
        raise FileExistsError(
            f'{folder} holds RefShapes data made with other settings ({shown}). '
            'Delete the folder or choose another one.'
        )
    return True


def make_refshapes(
    out_dir: str | os.PathLike,
    flavour: str = 'refshapes+',
    sizes: dict[str, int] | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress=None,
) -> bool:
    """Write one flavour of RefShapes in RefCOCO's layout, or in gRefCOCO's.

    A second call with the same settings finds the finished data and does nothing.

    Args:
        out_dir: Folder that gets ``train2014/`` and ``<flavour>/``.
        flavour: ``'refshapes'`` (locations), ``'refshapes+'`` (appearance), ``'refshapesg'``
            (long, relational) or ``'grefshapes'`` (several targets or none).
        sizes: Images of each split. Default: 2,000 train, 300 val, 300 testA, 300 testB.
        seed: Seed; the data is a function of it, of the flavour and of each image's number, and
            of OpenCV's major version, whose drawing and JPEG encoder differ at some edge pixels.
        workers: Processes. Default: one a core.
        progress: Called with (images done, images in all) after each image.

    Returns:
        True when data was written, False when it was there.

    Raises:
        ValueError: For an unknown flavour or split, or a size out of range.
        FileExistsError: When the folder holds data of other settings.
    """
    if flavour not in FLAVOURS:
        raise ValueError(f'unknown flavour {flavour!r}; RefShapes has {", ".join(FLAVOURS)}')
    sizes = dict(DEFAULT_SIZES if sizes is None else sizes)
    for split, size in sizes.items():
        if split not in SPLITS:
            raise ValueError(f'unknown split {split!r}; RefShapes has {", ".join(SPLITS)}')
        if not 0 <= size <= IMAGES_PER_SPLIT:
            raise ValueError(f'{split} cannot have {size} images (0 to {IMAGES_PER_SPLIT})')
    sizes = {split: int(sizes.get(split, 0)) for split in SPLITS}
    if seed < 0:
        raise ValueError(f'seed must not be negative, got {seed}')
    settings = {'version': VERSION, 'flavour': flavour, 'sizes': sizes, 'seed': int(seed)}
    folder = Path(out_dir) / flavour
    if _check_settings(folder, settings):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (Path(out_dir) / 'train2014').mkdir(exist_ok=True)

    jobs = [(split, i) for split in SPLITS for i in range(sizes[split])]
    make = partial(_make_image, out=str(out_dir), flavour=flavour, seed=seed)
    images, annotations, refs, scenes, meanings = [], [], [], {}, {}
    sent_id = 0
    for done, made in enumerate(_run(jobs, make, workers or os.cpu_count() or 1), 1):
        image = made['image']
        images.append(image)
        annotations += made['annotations']
        scenes[str(image['id'])] = {
            'split': made['split'],
            'width': image['width'],
            'height': image['height'],
            'objects': made['objects'],
        }
        for targets, said in made['references']:
            ref = _described(targets, made['annotations'], image['file_name'])
            sentences = []
            for text, meaning in said:
                tokens = text.split()
                sentences.append({'sent_id': sent_id, 'raw': text, 'sent': text, 'tokens': tokens})
                meanings[str(sent_id)] = {'ann_id': ref['ann_id'], 'meaning': meaning}
                sent_id += 1
            refs.append(
                {
                    'ref_id': len(refs),
                    'ann_id': ref['ann_id'],
                    'image_id': image['id'],
                    'category_id': ref['category_id'],
                    'split': made['split'],
                    'sentences': sentences,
                    'sent_ids': [s['sent_id'] for s in sentences],
                    'file_name': ref['file_name'],
                }
            )
        if progress is not None:
            progress(done, len(jobs))

    categories = [
        {'id': CATEGORY_IDS[name], 'name': name, 'supercategory': 'shape'} for name in CATEGORIES
    ]
    instances = {
        'info': {'description': f'RefShapes, {flavour}, seed {seed}, version {VERSION}'},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }
    write_bytes(folder / 'instances.json', json.dumps(instances).encode())
    if flavour == GENERALIZED:
        write_bytes(folder / 'grefs(unc).json', json.dumps(refs).encode())
    else:
        # Pickle writes an object that it met before as a pointer, and which strings are one object
        # depends on the processes: a round trip through JSON makes the bytes depend on values
        # alone.
        refs = json.loads(json.dumps(refs))
        write_bytes(folder / 'refs(unc).p', pickle.dumps(refs, protocol=2))
    scene_graphs = {'scenes': scenes, 'expressions': meanings}
    write_bytes(folder / 'scenes.json', json.dumps(scene_graphs, default=_plain).encode())
    write_bytes(folder / 'settings.json', json.dumps(settings, indent=1).encode())
    return True


def _plain(value):
    """Numpy scalars for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f'cannot write {type(value).__name__} as JSON')
