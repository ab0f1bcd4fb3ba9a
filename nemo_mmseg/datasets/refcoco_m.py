"""RefCOCO-M: RefCOCO's val with better masks, in Parquet files that hold the images, too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmseg.registry import DATASETS

from nemo_mmseg.utils.annotation_schema import BOX, FILE_NAME, ID, LIST, MAX_ENTRIES, TEXT
from nemo_mmseg.utils.atomic_write import write_bytes
from nemo_mmseg.utils.faults import MISSING, DataError, Faults, OnlyOnce, Rule, fault
from nemo_mmseg.utils.file_lock import only_one
from nemo_mmseg.utils.images import image_name
from nemo_mmseg.utils.parquet import find_shards, in_root, read_rows

from .base import BaseReferringDataset
from .refer import Reference
from .segmentation import clean_segmentation

SPLIT_NAMES = ('val', 'validation')
WHAT = 'RefCOCO-M'
ROW = dict(image_id=ID, file_name=FILE_NAME, samples=LIST)
SAMPLE = dict(
    id=ID,
    sentences=Rule(
        f'a list of at least one expression, each {TEXT.allowed}',
        (list,),
        also=lambda value: len(value) > 0 and TEXT.holds(*value),
    ),
    bbox=BOX,
    mask=Rule(
        'a dict with counts, a text, and size, two whole numbers',
        (dict,),
        also=lambda value: type(value.get('size')) is list and len(value['size']) == 2,
    ),
)


@dataclass(frozen=True)
class MaskedSample:
    """An object of RefCOCO-M.

    Attributes:
        entry: File and sample, for messages.
        id: Its id.
        image_id: Id of the image, COCO's.
        file_name: Name of the image, COCO's.
        category: Name of its category.
        sentences: Its expressions.
        bbox: x, y, width, height in pixels, or None.
        mask: RLE, ``counts`` and ``size``.
    """

    entry: str
    id: int
    image_id: int
    file_name: str
    category: str
    sentences: tuple[str, ...]
    bbox: list[float] | None
    mask: dict


def read_samples(source: str, errors: list[str] | None = None) -> list[MaskedSample]:
    """Read the objects of RefCOCO-M; the masks are not looked at yet.

    Args:
        source: See :func:`shards_by_split`.
        errors: Gets a line for each fault; the faulty entry is left out. Defaults to None: the
            first fault raises.

    Returns:
        The objects in the order of the file.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: There is no such data set.
        DataError: A column is missing, or a field holds what it must not.
        ValueError: A file is damaged or cut short, or holds nothing.
    """
    faults, samples = Faults(errors), []
    once = OnlyOnce(faults)
    for file in find_shards(source, SPLIT_NAMES):
        for row, record in read_rows(file, list(ROW), WHAT):
            samples += _samples_of(record, f'{file}: row {row}', faults, once)
            if len(samples) > MAX_ENTRIES:
                raise fault(file, 'the number of samples', len(samples), f'at most {MAX_ENTRIES}')
    if not samples:
        raise ValueError(f'{source}: no sample is left')
    return samples


def _samples_of(record: dict, entry: str, faults: Faults, once: OnlyOnce) -> list[MaskedSample]:
    """Check a row, and return its sound samples."""
    for name, rule in ROW.items():
        if not rule.holds(record[name]):
            faults.add(fault(entry, name, record[name], rule.allowed))
            return []
    number = record['image_id']
    if not once.is_new(entry, 'image_id', number):
        return []
    found = [_without_none(one) for one in record['samples']]
    entry = f'{entry}: image {number}'
    sound = faults.check(found, SAMPLE, entry, 'sample', 'id')
    return [
        MaskedSample(
            f'{entry}: sample {one["id"]}',
            one['id'],
            number,
            image_name(record['file_name']),
            str(one.get('category', '')),
            tuple(text.strip() for text in one['sentences']),
            one.get('bbox'),
            dict(counts=one['mask'].get('counts', MISSING), size=one['mask']['size']),
        )
        for one, is_sound in zip(found, sound)
        if is_sound and once.is_new(f'{entry}: sample {one["id"]}', 'id', one['id'])
    ]


def _without_none(sample: Any) -> Any:
    """Leave out the fields of a struct that are null, which is how Parquet says missing."""
    if type(sample) is not dict:
        return sample
    return {name: value for name, value in sample.items() if value is not None}


@DATASETS.register_module()
class RefCOCOMDataset(BaseReferringDataset):
    """RefCOCO-M, ``moondream/refcoco-m``: RefCOCO's val (UNC), segmented anew by Moondream (2025).

    1,190 images, 2,080 masks and 5,598 expressions: those whose object could be segmented well, and
    which are not harmful. The images lie in the Parquet file. Those that ``img_path`` lacks are
    written there when the data set is built, with the name and bytes that they have in the file;
    with COCO's folder ``train2014``, which has them all, or with ``check_images=False``, nothing is
    written.

    The file has no sentence ids; they are counted from 0 in its order. ``ref_id`` and the id of the
    annotation are the sample's. ``num_distractors`` is -1: not all objects are annotated.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: Folder or file of the data set, or its name in the hub's cache. Defaults to
            ``'moondream/refcoco-m'``.
        data_prefix: ``dict(img_path=...)``, the folder of the images.
        split: ``'val'``, the only one.
        **kwargs: See :class:`BaseReferringDataset`.
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: dict,
        ann_file: str = 'moondream/refcoco-m',
        split: str = 'val',
        **kwargs: Any,
    ) -> None:
        if split != 'val':
            raise ValueError(f"RefCOCO-M has the split 'val' only, not {split!r}")
        self.split = split
        self.source = in_root(data_root, ann_file)
        super().__init__(data_root=data_root, data_prefix=dict(data_prefix), **kwargs)
        self._metainfo.setdefault('dataset_name', 'refcoco-m')

    def load_reference_list(self, errors: list[str] | None = None) -> list[Reference]:
        """Read the file, and warn where it holds more or less than the published one."""
        samples = read_samples(self.source, errors)
        references = references_of(samples, Faults(errors))
        if not references:
            raise ValueError(f'{self.source}: no sample is left')
        self.compare_with_published(references, 'refcoco-m')
        return references

    def images_inside(self) -> set[str]:
        """Return the paths of all images, which the Parquet files hold."""
        names = (name for file in find_shards(self.source, SPLIT_NAMES) for name in _names_in(file))
        return {os.path.join(self.data_prefix['img_path'], name) for name in names}

    def write_images(self) -> None:
        """Write the images that are missing."""
        write_images(self.source, self.data_prefix['img_path'])


def references_of(samples: Sequence[MaskedSample], faults: Faults) -> list[Reference]:
    """Turn samples into references; the size of an image is that of its first mask."""
    categories = sorted({sample.category for sample in samples})
    images: dict[int, dict] = {}
    references, sent_id = [], 0
    for sample in samples:
        size = sample.mask['size']
        blank = dict(id=sample.image_id, file_name=sample.file_name, height=size[0], width=size[1])
        image = images.setdefault(sample.image_id, blank)
        ids = tuple(range(sent_id, sent_id + len(sample.sentences)))
        sent_id += len(ids)
        try:
            segmentation = checked_mask(sample, image['height'], image['width'])
        except DataError as error:
            faults.add(error)
            continue
        annotation = dict(
            id=sample.id,
            image_id=sample.image_id,
            category_id=categories.index(sample.category),
            bbox=sample.bbox,
            segmentation=segmentation,
        )
        references.append(Reference(sample.id, image, (annotation,), -1, ids, sample.sentences))
    return references


def checked_mask(sample: MaskedSample, height: int, width: int) -> dict:
    """Return the RLE of a sample.

    Raises:
        DataError: It is wrong or empty, or not of an image of this size.
    """
    return clean_segmentation(sample.mask, height, width, sample.entry)


def write_images(source: str, folder: str) -> None:
    """Write the images of RefCOCO-M that a folder lacks.

    Args:
        source: See :func:`shards_by_split`.
        folder: The folder, made if missing. Of several processes one writes.

    Raises:
        DataError: A row has no image.
    """

    def missing() -> bool:
        names = (name for file in shards for name in _names_in(file))
        return any(not os.path.isfile(os.path.join(folder, name)) for name in names)

    shards = find_shards(source, SPLIT_NAMES)
    if not missing():
        return
    what = f'write the images of {WHAT}'
    lock = Path(folder, '.refcoco-m.lock')
    with only_one(lock, timeout=600, what=what, signs=lambda: [Path(folder)]):
        for file in shards:
            for row, record in read_rows(file, ['file_name', 'image.bytes'], WHAT):
                name, image = record['file_name'], record['image'] or {}
                if not FILE_NAME.holds(name):
                    continue  # load_reference_list names it
                path = os.path.join(folder, image_name(name))
                if not os.path.isfile(path):
                    content = image.get('bytes') or MISSING
                    if type(content) is not bytes:
                        allowed = 'the bytes of an image file'
                        raise fault(f'{file}: row {row}', 'image.bytes', content, allowed)
                    write_bytes(path, content)


def _names_in(file: str) -> Iterator[str]:
    for _, record in read_rows(file, ['file_name'], WHAT):
        if FILE_NAME.holds(record['file_name']):
            yield image_name(record['file_name'])
