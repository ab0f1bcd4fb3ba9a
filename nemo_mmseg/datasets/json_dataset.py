"""Any data set of referring expressions, in one plain JSON form."""

from __future__ import annotations

import os.path as osp
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmseg.registry import DATASETS

from nemo_mmseg.utils.faults import DataError, Faults, fault
from nemo_mmseg.utils.fileio import load_json
from nemo_mmseg.utils.images import image_name
from nemo_mmseg.utils.referring_json import ReferringJSON, read_referring_json

from .base import BaseReferringDataset, refuse_missing
from .instances import instances_of
from .refer import Reference
from .segmentation import MaskFile, clean_segmentation

# What an object has of an annotation of a file of masks.
TAKEN = ('segmentation', 'bbox', 'area')


@DATASETS.register_module()
class ReferringJSONDataset(BaseReferringDataset):
    """A data set in this package's JSON form: images, their objects, expressions with targets.

    ``docs/own_data.md`` has the table of the form, a tutorial, and the converters. An expression
    has any number of targets; the mask of several is their union. An object has a mask as a PNG,
    polygons or an RLE, or a box alone; ``LoadReferentMask`` refuses a target of the latter kind.
    ``num_distractors`` of an expression without target, or in an image where an object has no
    category, is -1: unknown.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: The file, ``*.json`` or ``*.jsonl``.
        data_prefix: ``dict(img_path=..., mask_path=...)``, the folders of the images and of the
            masks that are PNGs. ``mask_path`` defaults to ``data_root``.
        split: The split that is read, ``'train'`` etc. Defaults to None: all expressions.
        text_key: Field of the expressions that is read. Defaults to ``'text'``.
        mask_file: Annotation file in COCO's layout, whose segmentations take the place of those of
            the objects that have their ids: pseudo masks. Defaults to None.
        unlabelled: What is done with references that lack a mask in ``mask_file``: ``'error'``
            names and counts them, ``'leave_out'`` leaves them out. Defaults to ``'error'``.
        **kwargs: See :class:`BaseReferringDataset`.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        data_prefix: dict,
        split: str | None = None,
        text_key: str = 'text',
        mask_file: str | None = None,
        unlabelled: str = 'error',
        **kwargs: Any,
    ) -> None:
        if unlabelled not in ('error', 'leave_out'):
            raise ValueError(f"unlabelled must be 'error' or 'leave_out', not {unlabelled!r}")
        self.unlabelled = unlabelled
        self.mask_file = mask_file and osp.join(data_root, mask_file)
        self.split = split
        self.text_key = text_key
        self.split_file = osp.join(data_root, ann_file)
        data_prefix = {'mask_path': '', **data_prefix}
        super().__init__(data_root=data_root, ann_file=ann_file, data_prefix=data_prefix, **kwargs)
        self._metainfo.setdefault('dataset_name', Path(self.ann_file).stem)

    def load_reference_list(self, errors: list[str] | None = None) -> list[Reference]:
        """Read the references of the split, and check the segmentations of their targets."""
        data = read_referring_json(self.ann_file, self.text_key, errors)
        faults = Faults(errors)
        if self.mask_file:
            self._take_masks_of_file(data, faults)
        references = [
            one for image in data.images for one in self._references_of(image, data, faults)
        ]
        if not references:
            splits = {str(one['split']) for image in data.images for one in image['expressions']}
            raise ValueError(
                f'{self.ann_file}, split {self.split}: no reference is left; the file has '
                f'expressions of: {", ".join(sorted(splits)[:20]) or "no split"}'
            )
        return references

    def _take_masks_of_file(self, data: ReferringJSON, faults: Faults) -> None:
        """Give objects the masks of ``mask_file``; refuse or leave out expressions without one."""
        found = instances_of(load_json(self.mask_file), self.mask_file, faults).annotations
        spoken, lacking = 0, []
        for image in data.images:
            for one in image['objects']:
                _take_mask(one, found.get(one['id']), image, self.mask_file, faults)
            masked = {one['id'] for one in image['objects'] if 'segmentation' in one}
            mine = [one for one in image['expressions'] if self.split in (None, one['split'])]
            kept = [one for one in mine if masked.issuperset(one['targets'])]
            lacking += sorted({one['id'] for one in mine} - {one['id'] for one in kept})
            spoken += len(mine)
            image['expressions'] = kept
        if lacking:
            ids = ', '.join(map(str, lacking[:10])) + ', ...' * (len(lacking) > 10)
            said = f'{len(lacking)} of {spoken} expressions have no mask in {self.mask_file}: {ids}'
            if self.unlabelled == 'error':
                faults.add(DataError(f'{said}. unlabelled="leave_out" leaves them out'))
            else:
                print_log(f'{said}. They are left out', 'current')

    def _references_of(self, image: dict, data: ReferringJSON, faults: Faults) -> list[Reference]:
        spoken: dict[int, list[dict]] = {}
        for one in image['expressions']:
            if self.split in (None, one['split']):
                spoken.setdefault(one['ref_id'], []).append(one)
        about = {key: image[key] for key in ('id', 'height', 'width')}
        about['file_name'] = image_name(image['file_name'])
        objects = {one['id']: one for one in image['objects']}
        made: dict[int, dict | None] = {}  # by id; references can share one
        references = []
        for ref_id, expressions in spoken.items():
            targets = [objects[number] for number in expressions[0]['targets']]
            # As in gRefCOCO: a crowd beside other targets is left out.
            targets = [one for one in targets if not one.get('iscrowd')] or targets
            for one in targets:
                if one['id'] not in made:
                    made[one['id']] = self._annotation(one, image, data, faults)
            annotations = [made[one['id']] for one in targets]
            if all(annotations):
                references.append(
                    Reference(
                        ref_id=ref_id,
                        image=about,
                        annotations=tuple(annotations),
                        num_distractors=_num_distractors(targets, image['objects']),
                        sent_ids=tuple(one['id'] for one in expressions),
                        expressions=tuple(one[self.text_key].strip() for one in expressions),
                    )
                )
        return references

    def _annotation(
        self, described: dict, image: dict, data: ReferringJSON, faults: Faults
    ) -> dict | None:
        """Turn an object into an annotation as ``instances.json`` has it; None if it is faulty."""
        segmentation = None
        if 'mask' in described:
            path = osp.join(self.data_prefix['mask_path'], image_name(described['mask']))
            segmentation = MaskFile(path)
        elif 'segmentation' in described:
            entry = f'{self.ann_file}: image {image["id"]}: object {described["id"]}'
            if self.mask_file:
                entry = f'{self.mask_file}: annotation {described["id"]}'
            try:
                segmentation = clean_segmentation(
                    described['segmentation'], image['height'], image['width'], entry
                )
            except DataError as error:
                faults.add(error)
                return None
        return dict(
            id=described['id'],
            category_id=data.category_id(described),
            bbox=described.get('bbox'),
            area=described.get('area', 0),
            segmentation=segmentation,
        )

    def _look_for_files(self, references: Sequence[Reference]) -> None:
        super()._look_for_files(references)
        folder = osp.join(self.data_prefix['mask_path'], '')
        segmentations = (a['segmentation'] for one in references for a in one.annotations)
        masks = {
            one.path.removeprefix(folder) for one in segmentations if isinstance(one, MaskFile)
        }
        refuse_missing(masks, folder, 'masks')


def _take_mask(described: dict, found: dict | None, image: dict, file: str, faults: Faults) -> None:
    """Give an object the mask, box and area of an annotation of its id, or no mask."""
    for key in ('mask', 'segmentation'):
        described.pop(key, None)
    if found is None:
        return
    if found['image_id'] != image['id']:
        allowed = f'{image["id"]}, the image of the object'
        entry = f'{file}: annotation {found["id"]}'
        faults.add(fault(entry, 'image_id', found['image_id'], allowed))
        return
    described.update({key: found[key] for key in TAKEN if key in found})


def _num_distractors(targets: list[dict], objects: list[dict]) -> int:
    if not targets or any('category' not in one for one in objects):
        return -1
    counts = Counter(one['category'] for one in objects if not one.get('iscrowd'))
    same = sum(counts[category] for category in {one['category'] for one in targets})
    return same - sum(not one.get('iscrowd') for one in targets)
