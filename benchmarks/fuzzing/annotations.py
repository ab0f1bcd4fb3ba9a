"""Split files and ``instances.json``: mutated, read by data sets, splits, check_data and tools."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from .judge import Case, Kind
from .mutate import change_structure, dumps, other_bytes, short
from .segmentations import HEIGHT, WIDTH, odd_segmentation, runs_of
from .truth import Invalid, Reader, digest

NUM_IMAGES = 5
FIELDS = (
    'ref_id', 'ann_id', 'image_id', 'category_id', 'split', 'sentences', 'sent', 'sent_id',
    'images', 'annotations', 'id', 'file_name', 'height', 'width', 'segmentation', 'area',
    'iscrowd', 'bbox', 'size', 'counts', 0,
)  # fmt: skip
PIPELINE = [
    dict(type='LoadReferringImage'),
    dict(type='LoadReferentMask'),
    dict(type='PackReferringInputs'),
]


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a smooth picture ``(height, width, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.uniform(0, 255, (n, n, 3)), (width, height)) for n in (3, 5)]
    return np.clip(sum(layers) / 2, 0, 255).astype(np.uint8)


def tables(generalized: bool = False) -> tuple[list, dict]:
    """Return references and instances in RefCOCO's layout, or in gRefCOCO's."""
    images = [
        dict(id=i, file_name=f'image_{i}.png', height=HEIGHT, width=WIDTH)
        for i in range(1, NUM_IMAGES + 1)
    ]
    annotations, refs = [], []
    for number in range(2 * NUM_IMAGES):
        image, x, y = number // 2 + 1, 2 + 3 * (number % 4), 1 + 2 * (number % 5)
        box = np.zeros((HEIGHT, WIDTH), np.uint8)
        box[y : y + 9, x : x + 14] = 1
        corners = [x, y, x + 14, y, x + 14, y + 9, x, y + 9]
        form = number % 4
        segmentation: Any = [[float(c) for c in corners]]
        if form == 1:
            code = coco_mask.encode(np.asfortranarray(box))
            segmentation = dict(size=[HEIGHT, WIDTH], counts=code['counts'].decode())
        elif form == 2:
            segmentation = dict(size=[HEIGHT, WIDTH], counts=runs_of(box))
        elif form == 3:
            segmentation = [corners, [20, 15, 30, 15, 25.5, 22]]
        ann_id, category = 100 + number, 1 + number % 3
        annotations.append(
            dict(id=ann_id, image_id=image, category_id=category, segmentation=segmentation,
                 area=126.0, bbox=[x, y, 14, 9], iscrowd=int(number == 9 and generalized))
        )  # fmt: skip
        targets = [[ann_id], [ann_id, ann_id - 1], [-1]][number % 3 if number % 2 else 0]
        refs.append(
            dict(
                ref_id=number, image_id=image, split='val' if number == 7 else 'train',
                ann_id=targets if generalized else ann_id,
                category_id=[category] if generalized else category,
                sentences=[
                    dict(sent_id=10 * number + k, sent=f'box {number} {word}',
                         raw=f'Box {number} {word}', tokens=['box', str(number), word])
                    for k, word in enumerate(('left', 'right')[: 1 + number % 2])
                ],
                sent_ids=[10 * number + k for k in range(1 + number % 2)],
                file_name=f'image_{image}_{ann_id}.png',
            )
        )  # fmt: skip
    names = [dict(id=i, name=f'kind {i}') for i in range(1, 4)]
    return refs, dict(images=images, annotations=annotations, categories=names)


@cache
def image_folder() -> str:
    """Return the folder of the pictures, made once."""
    import atexit
    import shutil
    import tempfile

    folder, process = tempfile.mkdtemp(prefix='fuzz-images-'), os.getpid()
    atexit.register(lambda: os.getpid() == process and shutil.rmtree(folder))
    for i in range(1, NUM_IMAGES + 1):
        cv2.imwrite(f'{folder}/image_{i}.png', picture(i))
    return folder


@cache
def expected_images() -> dict[str, str]:
    """Return the digests of the pictures as they reach a network, ``(3, H, W)`` BGR."""
    folder = Path(image_folder())
    return {
        path.name: digest(cv2.imread(str(path)).transpose(2, 0, 1)) for path in folder.iterdir()
    }


def lay_out(folder: Path, generalized: bool, refs: bytes, instances: bytes) -> Path:
    """Write a data set; returns its split file."""
    (folder / 'mini').mkdir(parents=True)
    (folder / 'images').symlink_to(image_folder())
    (folder / 'mini' / 'instances.json').write_bytes(instances)
    split_file = folder / 'mini' / ('grefs(unc).json' if generalized else 'refs(unc).p')
    split_file.write_bytes(refs)
    return split_file


def config(split_file: Path, **changes: Any) -> dict:
    """Return the config of the data set that :func:`lay_out` wrote."""
    kind = 'GRefCOCODataset' if split_file.suffix == '.json' else 'RefCOCODataset'
    folder = split_file.parent.parent
    settings = dict(
        type=kind, data_root=str(folder), ann_file='mini/instances.json', test_mode=True,
        split_file=f'mini/{split_file.name}', split='train',
        data_prefix=dict(img_path='images'), pipeline=PIPELINE,
    )  # fmt: skip
    return settings | changes


def read_all(split_file: Path) -> list[tuple]:
    """Build the data set and read all items; one entry per expression."""
    from mmseg.registry import DATASETS

    dataset = DATASETS.build(config(split_file))
    found = []
    for index in range(len(dataset)):
        item, packed = dataset.get_data_info(index), dataset[index]
        masks = packed['data_samples'].gt_sem_seg.data.numpy()
        name = os.path.basename(item['img_path'])
        if masks.max(initial=0) > 1:
            raise AssertionError(f'a mask with the value {masks.max()}')
        if digest(packed['inputs'].numpy()) != expected_images()[name]:
            raise AssertionError(f'{name} has other pixels')
        columns = (
            item[key] for key in ('sent_ids', 'expressions', 'num_targets', 'num_distractors')
        )
        for row, (sent_id, text, targets, distractors) in enumerate(zip(*columns, strict=True)):
            found.append((sent_id, text, name, digest(masks[row]), targets, distractors))
    dataset.expressions()
    by_image = DATASETS.build(config(split_file, group_by='image', pipeline=[]))
    count = sum(len(by_image.get_data_info(i)['expressions']) for i in range(len(by_image)))
    if count != len(found):
        raise AssertionError(f'grouped by image there are {count} expressions, not {len(found)}')
    return sorted(found, key=repr)


def check(split_file: Path, refused: bool, sound: bool) -> str | None:
    """Run check_data, which never raises; return what is wrong with its report."""
    from check_data import check_data
    from mmengine.config import Config

    settings = config(split_file)
    reports = check_data(
        Config(dict(train_dataloader=dict(dataset=settings))), ['train'], True, 1, False
    )
    errors = [error for report in reports for error in report.errors]
    if len(reports) != 1 or (refused and not errors):
        return f'check_data finds nothing where reading fails ({len(reports)} reports)'
    if sound and errors:
        return f'check_data finds errors in a sound file: {errors[0][:300]}'
    long = [error for error in errors if len(error) > 2000]
    return f'check_data has a message of {len(long[0])} characters' if long else None


def splits_of(split_file: Path) -> str | None:
    """Read the images of the splits, as leak guards do."""
    from nemo_mmseg.negatives.leak_guard import split_images

    try:
        for split, keys in split_images(str(split_file)).items():
            if not isinstance(split, str) or not all(isinstance(key, str) for key in keys):
                return f'split_images gives {short(split)}: {short(sorted(keys))}'
    except (ValueError, OSError) as error:
        if split_file.name not in str(error) or len(str(error)) > 2000:
            return f'split_images does not name the file: {str(error)[:200]}'
    except Exception as error:
        return f'split_images raises {type(error).__name__}: {str(error)[:200]}'
    return None


def compare(found: list[tuple], wanted: list[tuple]) -> str | None:
    """Compare samples; None in what is wanted stands for anything."""
    if len(found) != len(wanted):
        return f'{len(found)} expressions were read, not {len(wanted)}'
    for one, other in zip(found, wanted):
        if any(b is not None and a != b for a, b in zip(one, other)):
            return f'read {one}, not {other}'
    return None


def case(
    folder: Path, generalized: bool, refs: bytes, instances: bytes, what: str,
    parsed: Callable[[], tuple[Any, Any]], about: tuple[str, ...] = (), exact: bool = False,
) -> Case:  # fmt: skip
    """Make the case of a split file and an ``instances.json``.

    Args:
        folder: Where it is laid out.
        generalized: Whether it is gRefCOCO's layout.
        refs: Content of the split file.
        instances: Content of ``instances.json``.
        what: What was changed.
        parsed: Returns references and instances as an independent parser reads them.
        about: Ids and fields of which an error must name one.
        exact: Whether a sound file must be read.
    """
    split_file = lay_out(folder, generalized, refs, instances)
    sizes = dict.fromkeys(expected_images(), (HEIGHT, WIDTH))

    @cache
    def truth() -> Any:
        try:
            return Reader(sizes, generalized).read(*parsed())
        except Invalid as error:
            return str(error)
        except RecursionError:
            return 'it is too deep'

    def wrong(found: list[tuple]) -> str | None:
        wanted = truth()
        if isinstance(wanted, str):
            return f'read, but invalid: {wanted}'
        return compare(found, wanted.samples)

    def sound() -> bool:
        return exact and not isinstance(truth(), str) and not truth().loose

    def after(error: Exception | None) -> str | None:
        return check(split_file, error is not None, sound()) or splits_of(split_file)

    names = (split_file.name, 'instances.json', str(folder / 'images'))
    return Case(what, partial(read_all, split_file), wrong, names, about, sound, after)


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f'{module}.{name}')


def parse_refs(content: bytes, generalized: bool) -> Any:
    """Read a split file that the package could read."""
    if generalized:
        return json.loads(content)
    try:
        return _Plain(io.BytesIO(content), encoding='utf-8').load()
    except UnicodeDecodeError:
        return _Plain(io.BytesIO(content), encoding='latin-1').load()


def _bytes(
    folder: Path, rng: random.Random, seed: int, generalized: bool, of_instances: bool
) -> Case:
    refs, instances = tables(generalized)
    refs_bytes = dumps(refs) if generalized else pickle.dumps(refs, protocol=rng.randrange(6))
    instances_bytes = dumps(instances)
    others = (b'', cv2.imencode('.png', picture(0))[1].tobytes(), instances_bytes, refs_bytes)
    if of_instances:
        instances_bytes, what = other_bytes(instances_bytes, rng, others)
    else:
        refs_bytes, what = other_bytes(refs_bytes, rng, others)

    def parsed() -> tuple[Any, Any]:
        try:
            return parse_refs(refs_bytes, generalized), json.loads(instances_bytes)
        except Exception as error:
            raise Invalid(f'no parser reads it: {error}') from None

    return case(folder, generalized, refs_bytes, instances_bytes, what, parsed)


def _structure(
    folder: Path, rng: random.Random, seed: int, generalized: bool, of_instances: bool
) -> Case:
    refs, instances = tables(generalized)
    plain = of_instances or generalized
    before = instances if of_instances else refs
    for _ in range(20):
        changed, what, paths = change_structure(before, rng, plain, FIELDS)
        try:
            content = dumps(changed) if plain else pickle.dumps(changed, protocol=rng.randrange(6))
            break
        except (RecursionError, ValueError):  # the writer's limits
            continue
    about = (
        ()
        if what.startswith('whole')
        else ('position', *(word for path in paths for word in _about(before, path)))
    )
    if of_instances:
        refs_bytes = dumps(refs) if generalized else pickle.dumps(refs, protocol=2)
        instances_bytes = content
    else:
        refs_bytes, instances_bytes = content, dumps(instances)

    def parsed() -> tuple[Any, Any]:
        if not plain:
            return changed, instances
        try:
            again = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Invalid(str(error)) from None
        return (refs, again) if of_instances else (again, instances)

    return case(folder, generalized, refs_bytes, instances_bytes, what, parsed, about, exact=True)


def _about(content: Any, path: list) -> tuple[str, ...]:
    """Names of the fields on the way to a place, and ids of the records there."""
    words = [key for key in path if isinstance(key, str)]
    for key in path:
        content = content[key]
        if isinstance(content, dict):
            ids = (content.get(k) for k in ('id', 'ref_id', 'ann_id', 'image_id', 'sent_id'))
            words += [str(one) for one in ids if one is not None]
        if key == path[-1]:
            break
    return tuple(words)


def _segmentation(folder: Path, rng: random.Random, seed: int) -> Case:
    refs, instances = tables()
    one = rng.choice(instances['annotations'])
    one['segmentation'], what = odd_segmentation(one['segmentation'], rng)
    content = dumps(instances)

    def parsed() -> tuple[Any, Any]:
        try:
            return refs, json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Invalid(str(error)) from None

    about = (str(one['id']), 'segmentation')
    refs_bytes = pickle.dumps(refs, protocol=2)
    return case(folder, False, refs_bytes, content, what, parsed, about, exact=True)


def _kind(name: str, share: int, make: Callable) -> Kind:
    return Kind(name, share, make, lambda: expected_images())


KINDS = [
    _kind('refs-bytes', 90, partial(_bytes, generalized=False, of_instances=False)),
    _kind('refs-fields', 130, partial(_structure, generalized=False, of_instances=False)),
    _kind('grefs-bytes', 50, partial(_bytes, generalized=True, of_instances=False)),
    _kind('grefs-fields', 110, partial(_structure, generalized=True, of_instances=False)),
    _kind('instances-bytes', 70, partial(_bytes, generalized=False, of_instances=True)),
    _kind('instances-fields', 130, partial(_structure, generalized=False, of_instances=True)),
    _kind('segmentations', 130, _segmentation),
]
