"""A hand-made data set in RefCOCO's layout: five images, the three kinds of segmentation."""

import json
import pickle

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

import nemo_mmseg  # noqa: F401

HEIGHT, WIDTH = 48, 64


def rectangle(x0, y0, x1, y1):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def uncompressed(mask):
    """COCO's column-major run lengths, counted here by hand; the first run is of zeros."""
    counts, value, run = [], 0, 0
    for pixel in mask.flatten(order='F'):
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    counts.append(run)
    return dict(size=[HEIGHT, WIDTH], counts=counts)


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    return dict(size=list(rle['size']), counts=rle['counts'].decode())


def reference(ref_id, ann_id, image_id, texts, split='train', first=None):
    first = ref_id * 10 if first is None else first
    sentences = [
        dict(sent_id=first + i, sent=text, raw=text.title(), tokens=text.split())
        for i, text in enumerate(texts)
    ]
    return dict(
        ref_id=ref_id,
        ann_id=ann_id,
        image_id=image_id,
        category_id=1,
        split=split,
        sentences=sentences,
        sent_ids=[s['sent_id'] for s in sentences],
        file_name=f'image_{image_id}_{ann_id}.jpg',
    )


class MiniRefCOCO:
    """Writes the data set; a test changes `refs` or `instances` and calls `write` again."""

    def __init__(self, root):
        self.root = root
        self.masks = {100 + i: rectangle(4 * i, 3 * i, 4 * i + 20, 3 * i + 15) for i in range(1, 6)}
        self.masks[201] = rectangle(40, 30, 60, 45)
        segmentations = {
            101: [[4, 3, 24, 3, 24, 18, 4, 18]],
            102: compressed(self.masks[102]),
            103: uncompressed(self.masks[103]),
            104: [[16, 12, 36, 12, 36, 27, 16, 27]],
            105: compressed(self.masks[105]),
            201: [[40, 30, 60, 30, 60, 45, 40, 45]],
        }
        self.instances = dict(
            images=[
                dict(id=i, file_name=f'image_{i}.jpg', height=HEIGHT, width=WIDTH)
                for i in range(1, 6)
            ],
            annotations=[
                dict(
                    id=ann_id,
                    image_id=1 if ann_id == 201 else ann_id - 100,
                    category_id=1,
                    segmentation=segmentation,
                    bbox=[0, 0, 1, 1],
                    area=300.0,
                    iscrowd=0,
                )
                for ann_id, segmentation in segmentations.items()
            ],
            categories=[dict(id=1, name='box')],
        )
        self.refs = [
            reference(1, 101, 1, ['left box', 'the box on top', 'box']),
            reference(2, 102, 2, ['green box']),
            reference(3, 103, 3, ['right box', 'the low box']),
            reference(4, 104, 4, ['blue box', 'cyan box']),
            reference(5, 201, 1, ['the other box']),
            reference(6, 105, 5, ['box of val'], split='val'),
        ]

    def write(self):
        (self.root / 'mini').mkdir(exist_ok=True)
        (self.root / 'images').mkdir(exist_ok=True)
        (self.root / 'mini' / 'refs(unc).p').write_bytes(pickle.dumps(self.refs, protocol=2))
        (self.root / 'mini' / 'instances.json').write_text(json.dumps(self.instances))
        for image in self.instances['images']:
            pixels = np.full((HEIGHT, WIDTH, 3), 40 * image['id'], np.uint8)
            cv2.imwrite(str(self.root / 'images' / f'image_{image["id"]}.jpg'), pixels)
        return self

    def config(self, pipeline=(), **kwargs):
        settings = dict(
            type='RefCOCODataset',
            data_root=str(self.root),
            ann_file='mini/instances.json',
            split_file='mini/refs(unc).p',
            split='train',
            data_prefix=dict(img_path='images'),
            pipeline=list(pipeline),
        )
        return {**settings, **kwargs}


@pytest.fixture
def mini(tmp_path):
    init_default_scope('mmseg')
    return MiniRefCOCO(tmp_path).write()


def generalized_reference(ref_id, ann_ids, image_id, texts, split='train'):
    """A reference as gRefCOCO writes it."""
    ref = reference(ref_id, ann_ids, image_id, texts, split)
    ref.update(category_id=[-1 if ann_id == -1 else 1 for ann_id in ann_ids])
    return ref


class MiniGRefCOCO(MiniRefCOCO):
    """Also writes `grefs(unc).json`: references of one object, of two, and of none."""

    def __init__(self, root):
        super().__init__(root)
        self.refs = [
            generalized_reference(1, [101], 1, ['left box']),
            generalized_reference(2, [201, 101], 1, ['both boxes', 'all boxes']),
            generalized_reference(3, [-1], 1, ['the round thing']),
            generalized_reference(4, [102], 2, ['green box']),
            generalized_reference(5, [-1], 2, ['red box', 'blue box'], split='val'),
        ]

    def write(self):
        super().write()
        (self.root / 'mini' / 'grefs(unc).json').write_text(json.dumps(self.refs))
        return self

    def config(self, pipeline=(), **kwargs):
        settings = dict(type='GRefCOCODataset', split_file='mini/grefs(unc).json')
        return super().config(pipeline, **{**settings, **kwargs})


@pytest.fixture
def gref_mini(tmp_path):
    init_default_scope('mmseg')
    return MiniGRefCOCO(tmp_path).write()
