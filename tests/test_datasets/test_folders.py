"""Pictures, masks and a table of sentences become the JSON form."""

import cv2
import numpy as np
import pytest
from mini_refcoco import rectangle
from mmseg.registry import DATASETS
from own_data import write_pictures

from nemo_mmseg.datasets.conversion import folders_to_json
from nemo_mmseg.datasets.samplers import SampleIndex

PIPELINE = ['LoadReferringImage', 'LoadReferentMask', 'PackReferringInputs']


def build(root, split):
    return DATASETS.build(
        dict(
            type='ReferringJSONDataset', data_root=str(root), ann_file='own.json', split=split,
            data_prefix=dict(img_path='images', mask_path='masks'), group_by='image',
            pipeline=[dict(type=name) for name in PIPELINE],
        )
    )  # fmt: skip


TABLE = [
    'image,mask,sentence,category,split',
    'a.png,1.png,the left cup,cup,train',
    'a.png,1.png,"red cup, on the left",cup,train',
    'a.png,x/2.png,the right cup,cup,train',
    'a.png,1.png; x/2.png,both cups,cup,train',
    'part/b.png,,a horse,,val',
]


@pytest.fixture
def folders(tmp_path):
    write_pictures(tmp_path, 'a.png', 'part/b.png')
    (tmp_path / 'masks' / 'x').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'masks' / '1.png'), rectangle(3, 4, 20, 22))
    cv2.imwrite(str(tmp_path / 'masks' / 'x' / '2.png'), 255 * rectangle(30, 4, 40, 22))
    (tmp_path / 'table.csv').write_text('\ufeff' + '\r\n'.join(TABLE), encoding='utf-8')
    return tmp_path


def convert_folders(folders):
    paths = ('images', 'masks', 'table.csv', 'own.json')
    folders_to_json(*(str(folders / path) for path in paths))


def test_pictures_masks_and_a_table(folders):
    convert_folders(folders)
    dataset = build(folders, 'train')
    item = dataset.get_data_info(0)
    assert item['expressions'] == [
        'the left cup', 'red cup, on the left', 'the right cup', 'both cups',
    ]  # fmt: skip
    assert item['num_distractors'] == [1, 1, 1, 0] and item['num_targets'] == [1, 1, 1, 2]
    assert item['instances'][0]['bbox'] == [3, 4, 17, 18] and item['instances'][0]['area'] == 306
    masks = dataset[SampleIndex(0)]['data_samples'].gt_sem_seg.data.numpy()
    left, right = rectangle(3, 4, 20, 22), rectangle(30, 4, 40, 22)
    np.testing.assert_array_equal(masks, [left, left, right, left + right])
    assert build(folders, 'val').get_data_info(0)['num_targets'] == [0]


@pytest.mark.parametrize('row, words', [
    ('image;mask;sentence', 'table.csv: column image is missing; allowed: a header with image'),
    ('image,mask,sentence', 'table.csv: sentence is missing; allowed: a sentence in one entry'),
    ('a.png,1.png,left,cup', r'line 7: the line is .*; allowed: 5 cells'),
    ('a.png,1.png,left, red,cup,train', r'line 7: the line is .*; allowed: 5 cells'),
    ('a.png,1.png, ,cup,train', "line 7: sentence is the text ' '; allowed"),
    ('../a.png,1.png,left,cup,train', 'line 7: image is the text .*; allowed'),
    ('a.png,../1.png,left,cup,train', 'line 7: mask is the text .*; allowed'),
    ('a.png,1.png,left,bowl,train', "line 7: category is the text 'bowl'; allowed: 'cup'"),
    ('a.png,empty.png,left,cup,train', 'line 7: mask is the text .*not black all over'),
    ('a.png,small.png,left,cup,train', r'line 7: .*small\.png is 64x47 pixels, annotated as 64x48'),
    ('a.png,1.png,left,cup,', 'line 7: split is missing; allowed: in all .*; line 2 has one'),
    ('a.png,gone.png,left,cup,train', r'table\.csv: line 7: .*masks/gone\.png'),
    ('gone.png,1.png,left,cup,train', r'table\.csv: line 7: .*images/gone\.png'),
    ('damaged.png,1.png,left,cup,train', r'table\.csv: line 7: cannot read .*damaged\.png: it'),
    ('a.png,1.jpg,left,cup,train', r'line 7: the mask .*1\.jpg is no PNG; allowed: a PNG, 8 bits'),
    ('./a.png,1.png,left,cup,train', 'line 7: file_name is the .*csv: line 2 has it'),
    (f'a.png,3.png,left,{1001 * "x"},train', r'table\.csv: line 2: object 3: category is the text'),
    ('a.png,"1.png,left,cup,train', r'table\.csv is no CSV'),
])  # fmt: skip
def test_a_bad_table_is_named_by_line(folders, row, words):
    cv2.imwrite(str(folders / 'masks' / 'empty.png'), 0 * rectangle(0, 0, 1, 1))
    (folders / 'images' / 'damaged.png').write_text('no picture')
    cv2.imwrite(str(folders / 'masks' / '1.jpg'), 255 * rectangle(3, 4, 20, 22))
    cv2.imwrite(str(folders / 'masks' / '3.png'), rectangle(0, 0, 9, 9))
    cv2.imwrite(str(folders / 'masks' / 'small.png'), rectangle(0, 0, 9, 9)[:-1])
    rows = [row] if row.startswith('image') else [*TABLE, row]
    (folders / 'table.csv').write_text('\n'.join(rows))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        convert_folders(folders)
    assert not (folders / 'own.json').exists()
