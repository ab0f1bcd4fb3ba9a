"""Write RefShapes to disk in the layout of RefCOCO, its generalized variant in gRefCOCO's.

* ``out/train2014/COCO_train2014_000000000000.jpg`` ...: the images of all variants;
* ``out/<variant>/refs(unc).p`` and ``instances.json`` as RefCOCO's, or ``grefs(unc).json`` with
  lists of targets as gRefCOCO's;
* ``out/<variant>/scenes.json``: scene graphs and meanings of the expressions, only for checks;
* ``out/<variant>/settings.json``, written last: what made the data.
"""

import json
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2

from nemo_mmseg.utils.atomic_write import check_folder_path, write_bytes
from nemo_mmseg.utils.dist import end_with_parent
from nemo_mmseg.utils.faults import MISSING, fault, shown
from nemo_mmseg.utils.fileio import load_json

from .sample import make_sample
from .segment import to_coco
from .vocabulary import (
    CATEGORIES,
    CATEGORY_IDS,
    DEFAULT_SIZES,
    DISTRACTORS,
    GENERALIZED,
    SPLITS,
    VARIANTS,
)

VERSION = 3
# The variants share a folder of images, so their image ids must not collide.
_IMAGES_PER_SPLIT = 1_000_000
_OBJECTS_PER_IMAGE = 10
_UNCOMPRESSED_EVERY = 40


def _make_image(
    job: tuple[str, int], out: Path, variant: str, seed: int, distractors: str, context: float
) -> dict:
    """Make an image, write it as JPEG, and return what the annotation files say of it."""
    cv2.setNumThreads(0)
    split, index = job
    sample = make_sample(seed, variant, split, index, distractors, context)
    scene = sample.scene
    block = VARIANTS.index(variant) * len(SPLITS) + SPLITS.index(split)
    image_id = block * _IMAGES_PER_SPLIT + index + 1
    name = f'COCO_train2014_{image_id:012d}.jpg'
    quality = 88 + image_id % 8
    _, jpeg = cv2.imencode('.jpg', scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    write_bytes(out / 'train2014' / name, jpeg.tobytes())

    ann_ids = [image_id * _OBJECTS_PER_IMAGE + i for i in range(len(scene.objects))]
    annotations = [
        {
            'id': ann_id,
            'image_id': image_id,
            'category_id': CATEGORY_IDS[obj.category],
            **to_coco(mask, uncompressed=ann_id % _UNCOMPRESSED_EVERY == 0),
            'iscrowd': 0,
        }
        for ann_id, obj, mask in zip(ann_ids, scene.objects, scene.masks)
    ]
    graph = {
        'split': split,
        'width': scene.width,
        'height': scene.height,
        'main': scene.main,
        'objects': [
            {**obj.to_dict(), 'ann_id': ann_id} for ann_id, obj in zip(ann_ids, scene.objects)
        ],
    }
    image = {'id': image_id, 'file_name': name, 'width': scene.width, 'height': scene.height}
    return dict(image=image, annotations=annotations, graph=graph, references=sample.references)


def _targets(targets: tuple[int, ...], made: dict, generalized: bool) -> dict:
    """Return a reference's ``ann_id``, ``category_id`` and ``file_name``."""
    chosen = [made['annotations'][index] for index in targets]
    name = made['image']['file_name']
    if generalized:
        return {
            'ann_id': [a['id'] for a in chosen] or [-1],
            'category_id': [a['category_id'] for a in chosen] or [-1],
            'file_name': name,
        }
    (target,) = chosen
    return {
        'ann_id': target['id'],
        'category_id': target['category_id'],
        'file_name': f'{name.removesuffix(".jpg")}_{target["id"]}.jpg',
    }


def _run(jobs: list[tuple[str, int]], make: Callable, workers: int) -> Iterator[dict]:
    """Yield what the jobs give, in their order."""
    if workers <= 1:
        yield from map(make, jobs)
        return
    with multiprocessing.Pool(workers, end_with_parent) as pool:
        yield from pool.imap(make, jobs, chunksize=16)


def _is_made(folder: Path, settings: dict) -> bool:
    """Return whether the data is there already; raise an error when it was made otherwise."""
    marker = folder / 'settings.json'
    if not marker.exists():
        return False
    try:
        there = load_json(str(marker))
        if type(there) is not dict:
            raise fault(str(marker), 'the file', there, 'a dict of settings')
    except ValueError as error:
        raise ValueError(f'{error}. Delete the folder or choose another one.') from error
    if there.get('version') == 2:
        raise FileExistsError(
            f'{folder} holds RefShapes of version 2, whose objects had one of two absolute sizes. '
            f'It can be read, but only version {VERSION} is made now. Delete the folder or choose '
            'another one.'
        )
    differences = [
        f'{key}: {shown(there.get(key, MISSING))} there, {settings[key]} asked'
        for key in settings
        if there.get(key) != settings[key]
    ]
    if differences:
        raise FileExistsError(
            f'{folder} holds RefShapes data made with other settings ({", ".join(differences)}). '
            'Delete the folder or choose another one.'
        )
    return True


def make_refshapes(
    out_dir: str | os.PathLike,
    variant: str = 'refshapes+',
    sizes: dict[str, int] | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    distractors: str = 'normal',
    context: float = 0.0,
) -> bool:
    """Write one variant of RefShapes in RefCOCO's layout, or in gRefCOCO's.

    A second call with the same settings finds the finished data and does nothing.

    Args:
        out_dir: Folder that gets ``train2014/`` and ``<variant>/``.
        variant: ``'refshapes'`` (locations), ``'refshapes+'`` (appearance), ``'refshapesg'``
            (long, relational) or ``'grefshapes'`` (several targets or none).
        sizes: Number of images of each split. Default: 2,000 train, 300 val, 300 testA, 300 testB.
        seed: Seed, 0 or more. The data is a function of it, of the variant and of each image's
            number, and of OpenCV's major version, whose drawing and JPEG encoder differ at some
            edge pixels.
        workers: Number of processes. Default: one per core.
        progress: Called with (images done, images in all) after each image.
        distractors: How many distractors the training scenes hold: ``'easy'`` (two or three
            objects, mostly of different categories), ``'normal'``, or ``'hard'`` (four to six
            objects of one category).
        context: How far background and companions predict the category of the referent in
            training scenes, 0 (not at all) to 1; see :func:`~.sample.make_sample`.

            The other splits depend on neither of the two. Their images, references and ids are the
            same, so that all settings are compared on the same expressions, and a shortcut that
            training scenes offer does not help there.

    Returns:
        True when data was written, False when it was there.

    Raises:
        ValueError: The variant, a split, ``distractors`` or ``context`` is not among those named
            above, or ``settings.json`` is damaged.
        FileExistsError: The folder holds data of other settings.
    """
    sizes = DEFAULT_SIZES if sizes is None else sizes
    unknown = {variant} - set(VARIANTS) | set(sizes) - set(SPLITS)
    if unknown:
        raise ValueError(f'no {", ".join(unknown)}: RefShapes has {VARIANTS} with splits {SPLITS}')
    if distractors not in DISTRACTORS or not 0 <= context <= 1:
        raise ValueError(
            f'distractors={distractors!r}, context={context!r}: allowed are '
            f'{", ".join(DISTRACTORS)}, and 0 to 1'
        )
    sizes = {split: int(sizes.get(split, 0)) for split in SPLITS}
    settings = {'version': VERSION, 'sizes': sizes, 'seed': seed}
    settings |= {'distractors': distractors, 'context': float(context)}
    out = Path(out_dir)
    folder = out / variant
    check_folder_path(folder)
    if _is_made(folder, settings):
        return False

    # Training comes last, so that it does not change the numbers of the other splits' expressions.
    splits = [*(s for s in SPLITS if s != 'train'), 'train']
    jobs = [(split, i) for split in splits for i in range(sizes[split])]
    make = partial(
        _make_image,
        out=out,
        variant=variant,
        seed=seed,
        distractors=distractors,
        context=context,
    )
    images, annotations, refs, graphs, meanings = [], [], [], {}, {}
    for done, made in enumerate(_run(jobs, make, workers or os.cpu_count() or 1), 1):
        image = made['image']
        images.append(image)
        annotations += made['annotations']
        graphs[str(image['id'])] = made['graph']
        for targets, expressions in made['references']:
            described = _targets(targets, made, variant == GENERALIZED)
            sentences = []
            for expression, meaning in expressions:
                sent_id = len(meanings)
                sentences.append(
                    {
                        'sent_id': sent_id,
                        'raw': expression,
                        'sent': expression,
                        'tokens': expression.split(),
                    }
                )
                meanings[str(sent_id)] = {'ann_id': described['ann_id'], 'meaning': meaning}
            refs.append(
                {
                    'ref_id': len(refs),
                    'ann_id': described['ann_id'],
                    'image_id': image['id'],
                    'category_id': described['category_id'],
                    'split': made['graph']['split'],
                    'sentences': sentences,
                    'sent_ids': [s['sent_id'] for s in sentences],
                    'file_name': described['file_name'],
                }
            )
        if progress is not None:
            progress(done, len(jobs))

    instances = {
        'info': {'description': f'RefShapes, {variant}, seed {seed}, version {VERSION}'},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': CATEGORY_IDS[name], 'name': name, 'supercategory': 'shape'}
            for name in CATEGORIES
        ],
    }
    write_bytes(folder / 'instances.json', json.dumps(instances).encode())
    if variant == GENERALIZED:
        write_bytes(folder / 'grefs(unc).json', json.dumps(refs).encode())
    else:
        # Pickle writes an object that it met before as a pointer, and which strings are one object
        # depends on the processes. After a round trip through JSON only the values count.
        refs = json.loads(json.dumps(refs))
        write_bytes(folder / 'refs(unc).p', pickle.dumps(refs, protocol=2))
    scenes = {'scenes': graphs, 'expressions': meanings}
    write_bytes(folder / 'scenes.json', json.dumps(scenes).encode())
    write_bytes(folder / 'settings.json', json.dumps(settings, indent=1).encode())
    return True
