"""Converters: round trips lose nothing, and other forms give the masks that they show."""

import base64
import io
import json
import pickle

import cv2
import numpy as np
import pytest
from mini_refcoco import HEIGHT, WIDTH, MiniGRefCOCO, compressed, rectangle
from mmseg.registry import DATASETS
from PIL import Image

from nemo_mmseg.datasets.conversion import (
    coco_captions_to_json,
    folders_to_json,
    json_to_refcoco,
    label_studio_to_json,
    labelme_to_json,
    refcoco_to_json,
)
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.segmentation import MaskFile, decode_segmentation
from nemo_mmseg.utils.faults import DataError
from nemo_mmseg.utils.fileio import load_plain_pickle
from nemo_mmseg.utils.referring_json import read_referring_json

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
PACK = [dict(type='PackReferringInputs')]
VARIANTS = ['refshapes', 'refshapes+', 'refshapesg', 'grefshapes']


def read(path):
    return json.loads(path.read_text()) if path.suffix == '.json' else load_plain_pickle(str(path))


def build(kind, root, split, **files):
    return DATASETS.build(
        dict(
            type=kind, data_root=str(root), split=split, group_by='image', pipeline=[*LOAD, *PACK],
            **files,
        )
    )  # fmt: skip


def assert_same_items(one, other):
    """Equal items, masks pixel by pixel, and a fingerprint that lets the same bank serve."""
    assert len(one) == len(other) and one.fingerprint == other.fingerprint
    for index in range(len(one)):
        first, second = one.get_data_info(index), other.get_data_info(index)
        assert first == second
        masks = [
            dataset[SampleIndex(index)]['data_samples'].gt_sem_seg.data.numpy()
            for dataset in (one, other)
        ]
        np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize('variant', VARIANTS)
def test_refshapes_there_and_back(refshapes, tmp_path, variant):
    name, kind = 'refs(unc).p', 'RefCOCODataset'
    if variant == 'grefshapes':
        name, kind = 'grefs(unc).json', 'GRefCOCODataset'
    folder, out = refshapes / variant, tmp_path / 'unc.json'
    refcoco_to_json(str(folder / name), str(folder / 'instances.json'), str(out))
    images = dict(img_path=str(refshapes / 'train2014'))
    for split in ('train', 'val', 'testA', 'testB'):
        published = build(kind, folder, split, ann_file='instances.json', split_file=name,
                          data_prefix=images)  # fmt: skip
        ours = build('ReferringJSONDataset', tmp_path, split, ann_file='unc.json',
                     data_prefix=images)  # fmt: skip
        assert_same_items(published, ours)
    assert json_to_refcoco(str(out), str(tmp_path)) == name
    assert read(tmp_path / name) == read(folder / name)
    assert read(tmp_path / 'instances.json') == read(folder / 'instances.json')


@pytest.mark.parametrize('generalized', [False, True])
def test_mini_data_there_and_back(request, generalized, tmp_path):
    data = request.getfixturevalue('gref_mini' if generalized else 'mini')
    name = 'grefs(unc).json' if generalized else 'refs(unc).p'
    # what converters must carry along: fields that nobody knows, another split of one image, a
    # crowd, a name that is typed otherwise, and a reference that nobody describes
    data.refs[1]['split'] = 'testA'
    data.refs[0].update(remark='mine', file_name='other_name.jpg')
    data.refs[0]['sentences'][0]['worker'] = 7
    data.refs[3]['sentences'][0]['split'] = 'of another meaning'
    data.instances['images'][1]['split'] = 'restval'
    data.instances['annotations'][5].update(iscrowd=1, score=0.5)
    data.instances['images'][0]['license'] = 3
    data.instances.update(info=dict(year=2026), licenses=[])
    if generalized:
        data.refs.append(dict(data.refs[0], ref_id=9, sentences=[], sent_ids=[]))
    data.write()
    out = tmp_path / 'unc.json'
    refcoco_to_json(*(str(data.root / 'mini' / one) for one in (name, 'instances.json')), str(out))
    assert json_to_refcoco(str(out), str(tmp_path / 'back')) == name
    assert read(tmp_path / 'back' / name) == data.refs
    data.instances['annotations'].sort(key=lambda one: one['image_id'])
    assert read(tmp_path / 'back' / 'instances.json') == data.instances
    # JSON Lines have no table of categories; all else is the same
    lines = tmp_path / 'unc.jsonl'
    refcoco_to_json(
        *(str(data.root / 'mini' / one) for one in (name, 'instances.json')), str(lines)
    )
    assert read_referring_json(str(lines)).images == read_referring_json(str(out)).images


def test_own_data_there_and_back(tmp_path):
    """From the JSON form, with masks as PNGs, to RefCOCO's layout and back."""
    masks = {number: rectangle(number, 2 * number, 30 + number, 20) for number in range(1, 5)}
    cv2.imwrite(str(tmp_path / 'one.png'), 255 * masks[1])
    images = [
        dict(
            file_name='a/1.jpg', height=HEIGHT, width=WIDTH, split='train', photographer='me',
            objects=[
                dict(id=5, category='cup', mask='one.png', colour='red'),
                dict(id=6, category='bowl', segmentation=compressed(masks[2]), iscrowd=1),
                dict(id=7, segmentation=[[1, 1, 20, 1, 20, 20]]),
                dict(id=8, category='cup', bbox=[1, 2, 3, 4]),
            ],
            expressions=[
                dict(text='red cup', targets=[5], language='en'),
                dict(text='Bowl', targets=[6]),
                dict(text='all', targets=[7, 5, 8], split='val'),
                dict(text='no horse', targets=[]),
            ],
        ),
        dict(file_name='2.jpg', height=HEIGHT, width=WIDTH, objects=[], expressions=[]),
    ]  # fmt: skip
    (tmp_path / 'own.json').write_text(json.dumps(dict(images=images, info='mine')))
    name = json_to_refcoco(str(tmp_path / 'own.json'), str(tmp_path / 'out'))
    assert name == 'grefs(own).json'
    instances = read(tmp_path / 'out' / 'instances.json')
    areas = [one['area'] for one in instances['annotations']]
    assert areas[0] == masks[1].sum() and instances['annotations'][0]['bbox'] == [1, 2, 30, 18]
    assert {one['name']: one['id'] for one in instances['categories']} == {'bowl': 1, 'cup': 2}
    refcoco_to_json(
        str(tmp_path / 'out' / name), str(tmp_path / 'out' / 'instances.json'),
        str(tmp_path / 'back.json'),
    )  # fmt: skip
    before = read_referring_json(str(tmp_path / 'own.json'))
    after = read_referring_json(str(tmp_path / 'back.json'))
    assert after.head['info'] == 'mine' and before.category_ids == after.category_ids
    size = HEIGHT, WIDTH
    for one, other in zip(before.images, after.images, strict=True):
        # by expression there, by reference here
        key = lambda expression: expression['id']  # noqa: E731
        assert one.pop('expressions') == sorted(other.pop('expressions'), key=key)
        first, second = one.pop('objects'), other.pop('objects')
        assert one == other
        for a, b in zip(first, second, strict=True):
            if 'mask' in a:
                a['segmentation'] = MaskFile(str(tmp_path / a.pop('mask')))
            if 'segmentation' in a:
                np.testing.assert_array_equal(
                    decode_segmentation(a.pop('segmentation'), *size),
                    decode_segmentation(b.pop('segmentation'), *size),
                )
            assert a == {key: b[key] for key in a}
            assert b.keys() - a.keys() <= {'bbox', 'area'}


def test_pickles_that_are_written_are_plain(mini, tmp_path):
    folder = mini.root / 'mini'
    mini.refs[0]['sentences'][0]['sent'] = 'größer'
    mini.write()
    refcoco_to_json(str(folder / 'refs(unc).p'), str(folder / 'instances.json'),
                    str(tmp_path / 'x.json'))  # fmt: skip
    json_to_refcoco(str(tmp_path / 'x.json'), str(tmp_path))
    dataset = DATASETS.build(
        mini.config(ann_file=str(tmp_path / 'instances.json'),
                    split_file=str(tmp_path / 'refs(x).p'))
    )  # fmt: skip
    assert dataset.get_data_info(0)['expressions'][0] == 'größer'


FILES = ('mini/grefs(unc).json', 'mini/instances.json', 'x.json')


@pytest.mark.parametrize('change, words', [
    (lambda data: data.refs[0].update(ann_id=[102]), r'1: ann_id is \[102\]; allowed: annotations'),
    (lambda data: data.refs[0].update(image_id=77), 'reference 1: image_id is 77'),
    (lambda data: data.refs[0]['sentences'][0].update(sent=''), 'expression 10: sent is'),
    (lambda data: data.instances['annotations'][0].update(image_id=77), 'annotation 101: image_id'),
    (lambda data: data.instances['images'].append(data.instances['images'][0]), 'image 1: id is 1'),
    (lambda data: data.refs.append(data.refs[0]), 'reference 1: ref_id is 1; allowed: one that no'),
])  # fmt: skip
def test_faults_of_refcoco_s_files_are_named(tmp_path, change, words):
    data = MiniGRefCOCO(tmp_path)
    change(data)
    data.write()
    with pytest.raises(DataError, match=words):
        refcoco_to_json(*(str(tmp_path / one) for one in FILES))
    assert not (tmp_path / 'x.json').exists()


def write_pictures(folder, *names, height=HEIGHT, width=WIDTH):
    for name in names:
        path = folder / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


def test_captions_of_coco_s_annotations(mini, tmp_path):
    one, two = mini.instances['annotations'][:2]
    one['caption'], two['caption'] = 'left box', ['green box', 'a box']
    path = tmp_path / 'captions.json'
    path.write_text(json.dumps(mini.instances))
    coco_captions_to_json(str(path), str(tmp_path / 'own.json'), split='train')
    dataset = build('ReferringJSONDataset', tmp_path, 'train', ann_file='own.json',
                    data_prefix=dict(img_path='images'))  # fmt: skip
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [item['expressions'] for item in items] == [['left box'], ['green box', 'a box']]
    assert items[0]['num_distractors'] == [1], 'annotation 201, which has no caption'
    mask = dataset[SampleIndex(1)]['data_samples'].gt_sem_seg.data.numpy()
    np.testing.assert_array_equal(mask[0], mini.masks[102])
    two['caption'] = ['green box', ' ']
    path.write_text(json.dumps(mini.instances))
    with pytest.raises(DataError, match='annotation 102: caption is .*; allowed: a text'):
        coco_captions_to_json(str(path), str(tmp_path / 'own.json'))


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
    prefix = dict(img_path='images', mask_path='masks')
    dataset = build('ReferringJSONDataset', folders, 'train', ann_file='own.json',
                    data_prefix=prefix)  # fmt: skip
    item = dataset.get_data_info(0)
    assert item['expressions'] == [
        'the left cup', 'red cup, on the left', 'the right cup', 'both cups',
    ]  # fmt: skip
    assert item['num_distractors'] == [1, 1, 1, 0] and item['num_targets'] == [1, 1, 1, 2]
    assert item['instances'][0]['bbox'] == [3, 4, 17, 18] and item['instances'][0]['area'] == 306
    masks = dataset[SampleIndex(0)]['data_samples'].gt_sem_seg.data.numpy()
    left, right = rectangle(3, 4, 20, 22), rectangle(30, 4, 40, 22)
    np.testing.assert_array_equal(masks, [left, left, right, left + right])
    val = build('ReferringJSONDataset', folders, 'val', ann_file='own.json', data_prefix=prefix)
    assert val.get_data_info(0)['num_targets'] == [0]


@pytest.mark.parametrize('row, words', [
    ('image;mask;sentence', 'table.csv: column image is missing; allowed: a header with image'),
    ('a.png,1.png,left,cup', r'line 7: the line is .*; allowed: 5 cells'),
    ('a.png,1.png,left, red,cup,train', r'line 7: the line is .*; allowed: 5 cells'),
    ('a.png,1.png, ,cup,train', "line 7: sentence is the text ' '; allowed"),
    ('../a.png,1.png,left,cup,train', 'line 7: image is the text .*; allowed'),
    ('a.png,../1.png,left,cup,train', 'line 7: mask is the text .*; allowed'),
    ('a.png,1.png,left,bowl,train', "line 7: category is the text 'bowl'; allowed: 'cup'"),
    ('a.png,empty.png,left,cup,train', 'line 7: mask is the text .*not black all over'),
    ('a.png,small.png,left,cup,train', r'line 7: .*small\.png is 64x47 pixels, annotated as 64x48'),
    ('a.png,gone.png,left,cup,train', r'gone\.png'),
    ('gone.png,1.png,left,cup,train', r'gone\.png'),
    ('a.png,"1.png,left,cup,train', r'table\.csv is no CSV'),
])  # fmt: skip
def test_a_bad_table_is_named_by_line(folders, row, words):
    cv2.imwrite(str(folders / 'masks' / 'empty.png'), 0 * rectangle(0, 0, 1, 1))
    cv2.imwrite(str(folders / 'masks' / 'small.png'), rectangle(0, 0, 9, 9)[:-1])
    rows = [row] if row.startswith('image') else [*TABLE, row]
    (folders / 'table.csv').write_text('\n'.join(rows))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        convert_folders(folders)
    assert not (folders / 'own.json').exists()


def png_in_base64(mask):
    content = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(content, format='PNG')
    return base64.b64encode(content.getvalue()).decode()


@pytest.fixture
def labelme(tmp_path):
    write_pictures(tmp_path, 'a.png')
    (tmp_path / 'labels').mkdir()
    shapes = [
        dict(label='cup', points=[[2.0, 3.0], [22.0, 3.0], [22.0, 18.0], [2.0, 18.0]],
             group_id=None, description='left cup\nthe cup\n', shape_type='polygon', flags={}),
        dict(label='bowl', points=[[40, 30], [30, 20]], group_id=1, description='bowl',
             shape_type='rectangle', flags={}),
        dict(label='bowl', points=[[50, 10], [59, 14]], group_id=1, description='',
             shape_type='mask', flags={}, mask=png_in_base64(np.eye(5, 10))),
        dict(label='cup', points=[[45.0, 40.0], [45.0, 46.0]], group_id=None, description=None,
             shape_type='circle', flags={}, mask=None),
    ]  # fmt: skip
    content = dict(version='5.5.0', flags={}, shapes=shapes, imagePath='..\\images\\a.png',
                   imageData=None, imageHeight=HEIGHT, imageWidth=WIDTH)  # fmt: skip

    def write():
        (tmp_path / 'labels' / 'a.json').write_text(json.dumps(content))
        labelme_to_json(*(str(tmp_path / one) for one in ('labels', 'images', 'own.json')))

    return tmp_path, content, write


def test_labelme(labelme):
    folder, _, write = labelme
    write()
    dataset = build('ReferringJSONDataset', folder, None, ann_file='own.json',
                    data_prefix=dict(img_path='images'))  # fmt: skip
    item = dataset.get_data_info(0)
    assert item['expressions'] == ['left cup', 'the cup', 'bowl']
    assert item['num_distractors'] == [1, 1, 0]
    masks = dataset[SampleIndex(0)]['data_samples'].gt_sem_seg.data.numpy()
    bowl = rectangle(30, 20, 40, 30)
    bowl[10:15, 50:60] = np.eye(5, 10)
    np.testing.assert_array_equal(masks[1], rectangle(2, 3, 22, 18))
    np.testing.assert_array_equal(masks[2], bowl)
    circle = read_referring_json(str(folder / 'own.json')).images[0]['objects'][2]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    disk = (columns - 45) ** 2 + (rows - 40) ** 2 < 36
    drawn = decode_segmentation(circle['segmentation'], HEIGHT, WIDTH).astype(bool)
    assert (drawn & disk).sum() / (drawn | disk).sum() > 0.9


@pytest.mark.parametrize('shape, changes, words', [
    (0, dict(points=[[1, 2], [3, 4]]), 'the number of points is 2; allowed: at least 3'),
    (0, dict(points=[[1, 2], [3, '4'], [1, 5]]), 'points is .*; allowed: a list of points'),
    (0, dict(shape_type='line'), "shape_type is the text 'line'; allowed: one of polygon"),
    (0, dict(label=''), 'label is'),
    (0, dict(points=[[1e9, 2], [3, 4], [1, 5]]), 'a coordinate of segmentation'),
    (2, dict(points=[[50, 10], [70, 14]]), "shape 'bowl': points is"),
    (2, dict(points=[[50, 10], [58, 14]]), '10x5 pixels, annotated as 9x5'),
    (2, dict(mask='?'), "shape 'bowl': mask is the text"),
    (None, dict(imageWidth=0), 'a.json: imageWidth is 0'),
    (None, dict(imagePath='../../other/a.png'), 'a.json: imagePath is the text'),
    (None, dict(shapes={}), 'a.json: shapes'),
])  # fmt: skip
def test_faults_of_labelme_s_files_are_named(labelme, shape, changes, words):
    _, content, write = labelme
    (content if shape is None else content['shapes'][shape]).update(changes)
    with pytest.raises(ValueError, match=words):
        write()


def test_a_folder_without_labelme_s_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='no JSON file of LabelMe'):
        labelme_to_json(str(tmp_path), str(tmp_path), str(tmp_path / 'own.json'))


def rle_pack(values, word_size=8, sizes=(3, 4, 8, 16)):
    """Run lengths as @thi.ng/rle-pack writes them: runs of one value, and values one by one."""
    bits = f'{len(values):032b}{word_size - 1:05b}' + ''.join(f'{size - 1:04b}' for size in sizes)
    at = 0
    while at < len(values):
        end = at + 1
        while end < len(values) and values[end] == values[at] and end - at < 2 ** sizes[-1]:
            end += 1
        repeats = end - at > 1
        if not repeats:  # up to the next two that are equal
            while end < len(values) - 1 and values[end] != values[end + 1] and end - at < 8:
                end += 1
        size = next(number for number, size in enumerate(sizes) if end - at <= 2**size)
        bits += f'{repeats:b}{size:02b}{end - at - 1:0{sizes[size]}b}'
        words = values[at : at + 1] if repeats else values[at:end]
        bits += ''.join(f'{value:0{word_size}b}' for value in words)
        at = end
    bits += '0' * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def region(key, kind, value, **others):
    return dict(id=key, type=kind, from_name='tag', to_name='image', original_width=WIDTH,
                original_height=HEIGHT, image_rotation=0, value=value, **others)  # fmt: skip


PAINTED = rectangle(30, 8, 50, 20)
PAINTED[10, 35] = 0


@pytest.fixture
def label_studio(tmp_path):
    write_pictures(tmp_path, 'a.png', 'part/b.png')
    picture = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    picture[..., :3] = np.arange(3) * 40
    picture[..., 3] = 255 * PAINTED
    square = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((2, 3), (22, 3), (22, 18), (2, 18))]
    box = dict(x=100 * 10 / WIDTH, y=100 * 12 / HEIGHT, width=100 * 20 / WIDTH,
               height=100 * 6 / HEIGHT)  # fmt: skip
    results = [
        region('r1', 'polygonlabels', dict(points=square, polygonlabels=['cup'], closed=True)),
        region('r1', 'textarea', dict(text=['left cup', 'the cup'])),
        region('r2', 'brushlabels', dict(format='rle', rle=rle_pack(picture.ravel().tolist()),
                                         brushlabels=['cup'])),
        region('r2', 'textarea', dict(text=['right cup'])),
        dict(from_id='r1', to_id='r2', type='relation', direction='right'),
    ]  # fmt: skip
    others = [
        region('q1', 'rectangle', dict(box, rotation=90)),
        region('q1', 'labels', dict(box, rotation=90, labels=['bowl'])),
        region('q1', 'textarea', dict(text=['bowl'])),
        region('q2', 'ellipselabels', dict(x=50, y=50, radiusX=10, radiusY=20, rotation=0,
                                           ellipselabels=['bowl'])),
    ]  # fmt: skip
    tasks = [
        dict(id=1, data=dict(image='/data/upload/1/4425adf9-a.png'), annotations=[
            dict(id=3, was_cancelled=True, result=[]),
            dict(id=4, was_cancelled=False, result=results),
        ]),
        dict(id=2, data=dict(image='/data/local-files/?d=home/me/part/b.png'),
             annotations=[dict(id=5, result=others)]),
        dict(id=3, data=dict(image='s3://x/nobody.png'), annotations=[]),
    ]  # fmt: skip

    def write():
        (tmp_path / 'export.json').write_text(json.dumps(tasks))
        label_studio_to_json(
            *(str(tmp_path / one) for one in ('export.json', 'images', 'own.json')), split='train'
        )

    return tmp_path, tasks, write


def test_label_studio(label_studio):
    folder, _, write = label_studio
    write()
    dataset = build('ReferringJSONDataset', folder, 'train', ann_file='own.json',
                    data_prefix=dict(img_path='images'))  # fmt: skip
    items = [dataset.get_data_info(index) for index in range(2)]
    assert items[0]['expressions'] == ['left cup', 'the cup', 'right cup']
    assert items[0]['num_distractors'] == [1, 1, 1] and items[1]['num_distractors'] == [1]
    assert items[1]['img_path'].endswith('part/b.png')
    masks = dataset[SampleIndex(0)]['data_samples'].gt_sem_seg.data.numpy()
    np.testing.assert_array_equal(masks[0], rectangle(2, 3, 22, 18))
    np.testing.assert_array_equal(masks[2], PAINTED)
    mask = dataset[SampleIndex(1)]['data_samples'].gt_sem_seg.data.numpy()[0]
    # turned clockwise around its left upper corner at 10, 12
    np.testing.assert_array_equal(mask, rectangle(4, 12, 10, 32))
    ellipse = read_referring_json(str(folder / 'own.json')).images[1]['objects'][1]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    disk = ((columns - 32) / 6.4) ** 2 + ((rows - 24) / 9.6) ** 2 < 1
    drawn = decode_segmentation(ellipse['segmentation'], HEIGHT, WIDTH).astype(bool)
    assert (drawn & disk).sum() / (drawn | disk).sum() > 0.9


@pytest.mark.parametrize('row, changes, words', [
    (0, dict(value=dict(points=[[1, 2], ['3', 4]])), 'result r1: value: points is'),
    (0, dict(original_width=None), 'result r1: original_width is None'),
    (0, dict(image_rotation=90), 'result r1: image_rotation is 90; allowed: 0'),
    (0, dict(original_width=WIDTH + 1), 'region r2: original_height and original_width is'),
    (1, dict(value=dict(text=[' '])), 'result r1: value: text is'),
    (1, dict(id='other'), "textarea: id is the text 'other'; allowed: .*perRegion"),
    (2, dict(value=dict(format='rle', rle=[0, 0, 1, 1])), 'region r2: the number of values of rle'),
    (2, dict(value=dict(format='rle', rle=[0, 0, 48, 0])), 'region r2: rle is .*allowed: more'),
    (2, dict(value=dict(format='rle', rle=[0, 0, 999])), 'result r2: value: rle is'),
    (None, dict(data=dict(image='/data/upload/1/gone.png')), 'task 1: image is .*gone.png'),
    (None, dict(data=dict(picture='a.png')), 'task 1: image is missing'),
    (None, dict(annotations=None), 'task 1: annotations is None'),
])  # fmt: skip
def test_faults_of_label_studio_s_export_are_named(label_studio, row, changes, words):
    _, tasks, write = label_studio
    (tasks[0] if row is None else tasks[0]['annotations'][1]['result'][row]).update(changes)
    with pytest.raises(DataError, match=words):
        write()


def test_written_pickles_hold_no_shared_surprises(mini, tmp_path):
    """REFER's own readers use plain `pickle.load`."""
    folder = mini.root / 'mini'
    refcoco_to_json(str(folder / 'refs(unc).p'), str(folder / 'instances.json'),
                    str(tmp_path / 'x.json'))  # fmt: skip
    json_to_refcoco(str(tmp_path / 'x.json'), str(tmp_path))
    assert pickle.loads((tmp_path / 'refs(x).p').read_bytes()) == mini.refs
