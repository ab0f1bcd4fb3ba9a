"""ReferIt (RefCLEF): natural pictures with many small objects and short expressions."""

from __future__ import annotations

import os.path as osp
from typing import Any

from mmseg.registry import DATASETS

from nemo_mmseg.utils.annotation_schema import ID, LIST, NUMBER, SIDE, TEXT
from nemo_mmseg.utils.faults import DataError, Faults, Rule, fault
from nemo_mmseg.utils.fileio import collector_paused, load_plain_pickle

from .base import BaseReferringDataset
from .refer import Layout, Reference, load_references
from .segmentation import clean_segmentation


def _are_boxes(value: Any) -> bool:
    """Whether boxes ``[x1, y1, x2, y2]`` are there, and none is empty."""
    return len(value) > 0 and all(
        type(box) in (list, tuple)
        and len(box) == 4
        and NUMBER.holds(*box)
        and box[0] < box[2]
        and box[1] < box[3]
        for box in value
    )


IMAGE = dict(
    size=Rule(
        'height and width, and perhaps more',
        (list, tuple),
        also=lambda value: len(value) >= 2 and SIDE.holds(*value[:2]),
    ),
    annotations=LIST,
)
ANNOTATION = dict(
    ref_id=ID,
    query=TEXT,
    bbox=Rule(
        'a list of boxes [x1, y1, x2, y2], x1 < x2 and y1 < y2', (list, tuple), also=_are_boxes
    ),
    segmentation=Rule(
        'a list of RLEs',
        (list, tuple),
        also=lambda value: len(value) > 0 and set(map(type, value)) == {dict},
    ),
)


@DATASETS.register_module()
class ReferItDataset(BaseReferringDataset):
    """ReferIt, also called RefCLEF, in either of its layouts.

    - As weakly supervised grounding uses it (MG, GbS, WWbL, TRIS): a pickle for each split, a dict
      of images with their annotations. Each is an expression with a box, or several, and segments.
      Name it by ``split_file='annotations/{split}.pickle'``.
    - REFER's files: ``split_file='refclef/refs(berkeley).p'`` and
      ``ann_file='refclef/instances.json'``.

    The pictures are those of the IAPR TC-12 collection (SAIAPR), all in one folder. Expressions of
    one object with one box make one reference. A reference of several boxes has as many targets;
    its mask is the union of all its segments, also where they overlap. (The published code of TRIS
    sums them up, and counts a point in two segments as a miss.)

    Kazemzadeh et al., *ReferItGame*, EMNLP 2014; splits of Hu et al., *Natural Language Object
    Retrieval*, CVPR 2016.

    Args:
        data_root: Folder that the other paths are relative to.
        split: ``'train'``, ``'val'`` or ``'test'``.
        data_prefix: ``dict(img_path=...)``, the folder of the images.
        split_file: Pickle, with ``{split}`` for the name of the split where each has its own.
            Defaults to ``'annotations/{split}.pickle'``.
        ann_file: REFER's ``instances.json``. Defaults to ``''``: the layout without it.
        min_box_area: Share of the image, 0..1, that the first box of a reference must exceed. TRIS
            tests with 0.05. Defaults to 0, which keeps all.
        text_key: For REFER's files, see :class:`RefCOCODataset`. Defaults to ``'sent'``.
        **kwargs: See :class:`BaseReferringDataset`.

    Raises:
        ValueError: ``min_box_area`` is not in 0..1, or leaves nothing.
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        data_prefix: dict,
        split_file: str = 'annotations/{split}.pickle',
        ann_file: str = '',
        min_box_area: float = 0.0,
        text_key: str = 'sent',
        **kwargs: Any,
    ) -> None:
        if not 0 <= min_box_area < 1:
            raise ValueError(f'min_box_area must be at least 0 and below 1, not {min_box_area}')
        self.split = split
        self.split_file = osp.join(data_root, split_file.replace('{split}', split))
        self.min_box_area = min_box_area
        self.text_key = text_key
        super().__init__(
            data_root=data_root, ann_file=ann_file, data_prefix=dict(data_prefix), **kwargs
        )
        self._metainfo.setdefault('dataset_name', 'referit')

    def load_reference_list(self, errors: list[str] | None = None) -> list[Reference]:
        """Read the split, without references whose first box is too small."""
        if self.ann_file:
            references = load_references(
                self.split_file, self.ann_file, self.split, Layout(self.text_key), errors
            )
        else:
            references = load_grounding_pickle(self.split_file, errors)
        kept = [one for one in references if self._is_large(one)]
        if not kept:
            raise ValueError(
                f'{self.split_file}, split {self.split}: of {len(references)} references none has '
                f'a box above min_box_area={self.min_box_area:g} of its image'
            )
        return kept

    def _is_large(self, reference: Reference) -> bool:
        if not self.min_box_area:
            return True
        first, image = reference.annotations[0], reference.image
        if first.get('bbox') is None:
            raise ValueError(
                f'{self.ann_file}: annotation {first["id"]} has no bbox, which min_box_area needs'
            )
        _, _, width, height = first['bbox']
        return width * height > self.min_box_area * image['height'] * image['width']


@collector_paused()
def load_grounding_pickle(file: str, errors: list[str] | None = None) -> list[Reference]:
    """Read a split as weakly supervised grounding has it.

    Args:
        file: Pickle of a dict, image id -> dict of ``size`` (height, width, 3) and
            ``annotations``; each of these a dict of ``ref_id``, ``query``, ``bbox`` (boxes x1, y1,
            x2, y2) and ``segmentation`` (RLEs). Other entries are not read.
        errors: Gets a line for each fault; the faulty entry is left out. Defaults to None: the
            first fault raises.

    Returns:
        A reference for each object, by rising image id. ``sent_ids`` number all annotations of the
        file. ``num_distractors`` is -1: unknown.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A field holds what it must not.
        ValueError: The file is damaged.
    """
    faults, images = Faults(errors), load_plain_pickle(file)
    if type(images) is not dict:
        raise fault(file, 'the file', images, 'a dict of images by their ids')
    references, count = [], 0
    for key in sorted(images, key=lambda key: (len(str(key)), str(key))):
        if not str(key).isdecimal():
            faults.add(fault(file, 'the id of an image', key, 'a whole number, as a text'))
            continue
        entry = f'{file}: image {key}'
        (sound,) = faults.check([images[key]], IMAGE, entry, 'entry', 'image_id')
        if sound:
            annotations = images[key]['annotations']
            references += _references(images[key], int(key), count, entry, faults)
            count += len(annotations)
    return references


def _references(image: dict, number: int, first: int, entry: str, faults: Faults) -> list:
    """Group the annotations of an image by object.

    Args:
        image: Its entry.
        number: Its id.
        first: Number of its first annotation in the file.
        entry: File and image, for messages.
        faults: What becomes of errors.
    """
    height, width = map(int, image['size'][:2])
    about = dict(id=number, file_name=f'{number}.jpg', height=height, width=width)
    annotations = image['annotations']
    sound = faults.check(annotations, ANNOTATION, entry, 'annotation', 'ref_id')
    objects: dict[tuple, list[int]] = {}
    for row, (annotation, is_sound) in enumerate(zip(annotations, sound)):
        if is_sound:
            boxes = tuple(map(tuple, annotation['bbox']))
            objects.setdefault((annotation['ref_id'], boxes), []).append(row)
    found = []
    for (ref_id, _), rows in objects.items():
        try:
            targets = _targets(annotations[rows[0]], about, 100 * (first + rows[0]), entry)
        except DataError as error:
            faults.add(error)
            continue
        found.append(
            Reference(
                ref_id=ref_id,
                image=about,
                annotations=tuple(targets),
                num_distractors=-1,
                sent_ids=tuple(first + row for row in rows),
                expressions=tuple(annotations[row]['query'].strip() for row in rows),
            )
        )
    return found


def _targets(annotation: dict, image: dict, first_id: int, entry: str) -> list[dict]:
    """Make a target of each box, in the layout of ``instances.json``."""
    boxes, parts = annotation['bbox'], [_json_rle(one) for one in annotation['segmentation']]
    entry = f'{entry}: annotation of reference {annotation["ref_id"]}'
    targets = []
    for place, (x1, y1, x2, y2) in enumerate(boxes):
        # Where there are as many segments as boxes, they belong together.
        own = parts[place : place + 1] if len(parts) == len(boxes) else parts
        targets.append(
            dict(
                id=first_id + place,
                image_id=image['id'],
                category_id=0,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                area=float((x2 - x1) * (y2 - y1)),
                segmentation=clean_segmentation(own, image['height'], image['width'], entry),
            )
        )
    return targets


def _json_rle(rle: dict) -> dict:
    """An RLE with its size as JSON would have it."""
    size = rle.get('size')
    return dict(rle, size=list(size)) if type(size) is tuple else rle
