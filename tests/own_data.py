"""A hand-made data set in the JSON form: four images, masks of all kinds."""

import json

import cv2
import numpy as np
import pytest
from mini_refcoco import HEIGHT, WIDTH, compressed, rectangle, uncompressed
from mmseg.registry import DATASETS

MASKS = {number: rectangle(4 * number, 3 * number, 4 * number + 20, 3 * number + 15)
         for number in range(1, 6)}  # fmt: skip


def picture(number, objects, expressions, split='train'):
    return dict(
        file_name=f'{number}.png', height=HEIGHT, width=WIDTH, split=split, objects=objects,
        expressions=[dict(text=text, targets=targets) for text, targets in expressions],
    )  # fmt: skip


def write_pictures(folder, *names):
    """Black pictures `images/NAME`."""
    for name in names:
        path = folder / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


class OwnData:
    """Four images; masks as PNG, polygon, both kinds of RLE, and a box alone."""

    def __init__(self, root):
        self.root = root
        self.images = [
            picture(
                1,
                [
                    dict(id=1, category='box', mask='part/1.png'),
                    dict(id=2, category='box', segmentation=[[8, 6, 28, 6, 28, 21, 8, 21]]),
                    dict(id=3, category='cup', segmentation=compressed(MASKS[3])),
                ],
                [('left box', [1]), ('both boxes', [1, 2]), ('the box', [1]), ('a hat', [])],
            ),
            picture(2, [dict(id=4, category='box', segmentation=uncompressed(MASKS[4]))],
                  [('blue box', [4]), ('a dog', [])]),
            picture(3, [dict(id=5, category='cup', bbox=[20, 15, 20, 15])], [('cup', [5])], 'val'),
            picture(4, [dict(id=6, category='box', mask='6.png')], [('last box', [6])]),
        ]  # fmt: skip

    def write(self, name='own.json'):
        (self.root / 'images').mkdir(exist_ok=True)
        (self.root / 'masks' / 'part').mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(self.root / 'masks' / 'part' / '1.png'), MASKS[1])
        cv2.imwrite(str(self.root / 'masks' / '6.png'), 255 * MASKS[5])
        for number in range(1, 5):
            pixels = np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)
            cv2.imwrite(str(self.root / 'images' / f'{number}.png'), pixels)
        if name.endswith('.jsonl'):
            text = ''.join(json.dumps(one) + '\n' for one in self.images)
        else:
            text = json.dumps(dict(images=self.images))
        (self.root / name).write_text(text)
        return self

    def config(self, pipeline=(), **changes):
        settings = dict(
            type='ReferringJSONDataset',
            data_root=str(self.root),
            ann_file='own.json',
            data_prefix=dict(img_path='images', mask_path='masks'),
            split='train',
            pipeline=list(pipeline),
        )
        return {**settings, **changes}

    def build(self, pipeline=(), **changes):
        return DATASETS.build(self.config(pipeline, **changes))


@pytest.fixture
def own(tmp_path):
    return OwnData(tmp_path).write()
