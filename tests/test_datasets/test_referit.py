"""ReferIt in both layouts, on a small made-up set."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from mini_refcoco import HEIGHT, WIDTH, compressed, rectangle, reference
from mmengine.config import Config
from mmseg.registry import DATASETS

from nemo_mmseg.datasets.base import BaseReferringDataset
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.utils.faults import DataError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CONFIG = CONFIGS / '_base_/datasets/referit.py'
TRIS = CONFIGS / 'tris/tris-stage1_r50_1xb48-15e_referit-320x320.py'
# x1, y1, x2, y2; the second covers 1.3 % of the image
BOXES = dict(a=[4, 3, 24, 18], b=[40, 30, 50, 34], c=[30, 5, 60, 45])


def rle(*boxes):
    """As REFER has it: a list of RLEs, their counts bytes."""
    made = [compressed(rectangle(*box)) for box in boxes]
    return [dict(size=tuple(one['size']), counts=one['counts'].encode()) for one in made]


def annotation(ref_id, query, *boxes, segments=None):
    return dict(
        ref_id=ref_id,
        image_id=0,
        query=query,
        category={17},
        bbox=[list(box) for box in boxes],
        bbox_norm=[[0.0] * 4 for _ in boxes],
        segmentation=segments or rle(*boxes),
        idx=[0],
        image_size=(HEIGHT, WIDTH, 3),
    )


class MiniReferIt:
    def __init__(self, root):
        self.root = root
        self.images = {
            '1020': [
                annotation(7, 'left rock', BOXES['a']),
                annotation(8, 'small bird', BOXES['b']),
                annotation(7, 'the rock', BOXES['a']),
            ],
            '33': [
                annotation(9, 'both boats', BOXES['a'], BOXES['c']),
                annotation(10, 'all of it', BOXES['c'], segments=rle(BOXES['b'], BOXES['c'])),
            ],
        }

    def write(self):
        (self.root / 'annotations').mkdir(exist_ok=True)
        (self.root / 'images').mkdir(exist_ok=True)
        content = {
            key: dict(
                image_id=int(key), size=(HEIGHT, WIDTH, 3), queries=[], captions=['a place'],
                annotations=annotations,
            )
            for key, annotations in self.images.items()
        }  # fmt: skip
        (self.root / 'annotations' / 'test.pickle').write_bytes(pickle.dumps(content))
        for key in self.images:
            cv2.imwrite(str(self.root / 'images' / f'{key}.jpg'), np.zeros((HEIGHT, WIDTH, 3)))
        return self

    def build(self, **settings) -> BaseReferringDataset:
        config = Config.fromfile(CONFIG).test_dataloader.dataset
        return DATASETS.build({**config, 'data_root': str(self.root), **settings})


@pytest.fixture
def mini_referit(tmp_path):
    return MiniReferIt(tmp_path).write()


def described(dataset):
    """Expressions and boxes of each item."""
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(item['img_id'], item['expressions'], item['ref_ids']) for item in items]


def test_expressions_of_an_object_are_one_reference(mini_referit):
    dataset = mini_referit.build(min_box_area=0.0, group_by='reference')
    assert described(dataset) == [
        (33, ['both boats'], [9]),
        (33, ['all of it'], [10]),
        (1020, ['left rock', 'the rock'], [7, 7]),
        (1020, ['small bird'], [8]),
    ]
    ids = [one for i in range(4) for one in dataset.get_data_info(i)['sent_ids']]
    assert sorted(ids) == [0, 1, 2, 3, 4]
    assert len(dataset.pool) == 2 and dataset.metainfo['dataset_name'] == 'referit'


def test_small_boxes_are_left_out_as_published(mini_referit):
    # the first box counts: 300 pixels of 3072 are 9.8 %, 40 are 1.3 %
    texts = [text for _, several, _ in described(mini_referit.build()) for text in several]
    assert texts == ['both boats', 'all of it', 'left rock', 'the rock']
    texts = [t for _, many, _ in described(mini_referit.build(min_box_area=0.1)) for t in many]
    assert texts == ['all of it']
    exactly = 300 / (HEIGHT * WIDTH)
    assert len(described(mini_referit.build(min_box_area=exactly))) == 1, 'more than the share'
    with pytest.raises(ValueError, match='of 4 references none has a box above min_box_area=0.9'):
        mini_referit.build(min_box_area=0.9)
    with pytest.raises(ValueError, match='min_box_area must be at least 0 and below 1'):
        mini_referit.build(min_box_area=5)


def test_boxes_and_masks_reach_the_metric(mini_referit):
    sample = mini_referit.build()[0]['data_samples']
    assert sample.expressions == ['both boats', 'all of it']
    assert sample.gt_bboxes == [[BOXES['a'], BOXES['c']], [BOXES['c']]]
    both = np.maximum(rectangle(*BOXES['a']), rectangle(*BOXES['c']))
    np.testing.assert_array_equal(sample.gt_sem_seg.data[0], both)
    all_of_it = np.maximum(rectangle(*BOXES['b']), rectangle(*BOXES['c']))
    np.testing.assert_array_equal(sample.gt_sem_seg.data[1], all_of_it)


def test_the_training_pipeline_gives_samples(mini_referit):
    config = Config.fromfile(CONFIG).train_dataloader.dataset
    settings = dict(data_root=str(mini_referit.root), split='test')
    dataset = DATASETS.build({**config, **settings})
    sample = dataset[0]
    assert len(dataset) == 4 and sample['inputs'].shape == (3, 320, 320)
    assert sample['data_samples'].gt_sem_seg.shape == (320, 320)


def test_tris_learns_expressions_and_those_of_other_objects(mini_referit):
    config = Config.fromfile(TRIS).train_dataloader.dataset
    dataset = DATASETS.build({**config, 'data_root': str(mini_referit.root), 'split': 'test'})
    found = {}
    for index in range(len(dataset)):
        sample = dataset[SampleIndex(index, 0)]['data_samples']
        assert 'gt_sem_seg' not in sample, 'no mask is read'
        (negatives,) = sample.negative_expressions
        found[sample.ref_ids[0]] = set(negatives)
        assert len(negatives) == 3
    assert found[9] == {'all of it'} and found[10] == {'both boats'}
    assert found[7] == {'small bird'} and found[8] <= {'left rock', 'the rock'}


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(query=' '), r"image 33: annotation 9: query is the text ' '; allowed: a text"),
        (dict(bbox=[]), r'annotation 9: bbox is \[\]; allowed: a list of boxes \[x1'),
        (dict(bbox=[[5, 5, 5, 9]]), r'bbox is \[\[5, 5, 5, 9\]\]; allowed'),
        (dict(bbox=[[1, 2, 3]]), 'allowed: a list of boxes'),
        (dict(segmentation=[]), r'segmentation is \[\]; allowed: a list of RLEs'),
        (dict(segmentation=[dict(size=(1, 1), counts=b'1')]), 'of reference 9: size of segment'),
        (dict(ref_id='x'), r"image 33: annotation at position 0: ref_id is the text 'x'"),
    ],
)
def test_faults_name_file_image_and_field(mini_referit, change, message):
    mini_referit.images['33'][0].update(change)
    mini_referit.write()
    with pytest.raises(DataError, match=r'test\.pickle: .*' + message):
        mini_referit.build()
    # the check of data sets lists faults and goes on
    dataset = mini_referit.build(lazy_init=True)
    errors = []
    references = dataset.load_reference_list(errors)
    assert len(errors) == 1 and len(references) == 2


@pytest.mark.parametrize(
    'content, message',
    [([], 'the file is'), ({'x': {}}, "the id of an image is the text 'x'"),
     ({'5': {}}, 'image 5: entry at position 0: size is missing'), ({'5': 3}, 'a dict')],
)  # fmt: skip
def test_other_files_are_refused(mini_referit, content, message):
    (mini_referit.root / 'annotations/test.pickle').write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        mini_referit.build()


def test_missing_files_are_named(mini_referit):
    with pytest.raises(FileNotFoundError, match=r'val\.pickle'):
        mini_referit.build(split='val')
    (mini_referit.root / 'images/33.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'33\.jpg'):
        mini_referit.build()


def test_refer_s_own_files(mini_referit):
    folder = mini_referit.root / 'refclef'
    folder.mkdir()
    refs = [
        reference(1, 100, 33, ['left boat', 'a boat'], split='test'),
        reference(2, 101, 1020, ['bird'], split='test'),
        reference(3, 100, 33, ['of train'], split='train'),
    ]
    annotations = [
        dict(
            id=number, image_id=image, category_id=17, iscrowd=0,
            segmentation=[compressed(rectangle(*BOXES[box]))], bbox=[x1, y1, x2 - x1, y2 - y1],
        )
        for number, image, box, (x1, y1, x2, y2) in (
            (100, 33, 'a', BOXES['a']), (101, 1020, 'b', BOXES['b'])
        )
    ]  # fmt: skip
    images = [
        dict(id=int(key), file_name=f'{key}.jpg', height=HEIGHT, width=WIDTH)
        for key in mini_referit.images
    ]
    (folder / 'refs(berkeley).p').write_bytes(pickle.dumps(refs))
    (folder / 'instances.json').write_text(json.dumps(dict(images=images, annotations=annotations)))
    files = dict(split_file='refclef/refs(berkeley).p', ann_file='refclef/instances.json')
    dataset = mini_referit.build(**files, min_box_area=0.0)
    assert described(dataset) == [(33, ['left boat', 'a boat'], [1, 1]), (1020, ['bird'], [2])]
    assert dataset[0]['data_samples'].gt_bboxes == [[BOXES['a']]] * 2
    np.testing.assert_array_equal(
        dataset[0]['data_samples'].gt_sem_seg.data[1], rectangle(*BOXES['a'])
    )
    assert [text for _, text, _ in described(mini_referit.build(**files))] == [
        ['left boat', 'a boat']
    ]
