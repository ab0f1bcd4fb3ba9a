"""What LabelMe and Label Studio save becomes the masks that they show."""

import base64
import io
import json

import numpy as np
import pytest
from mini_refcoco import HEIGHT, WIDTH, rectangle
from mmseg.registry import DATASETS
from own_data import write_pictures
from PIL import Image

from nemo_mmseg.datasets.conversion import label_studio_to_json, labelme_to_json
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.utils.faults import DataError
from nemo_mmseg.utils.referring_json import read_referring_json

PIPELINE = ['LoadReferringImage', 'LoadReferentMask', 'PackReferringInputs']


def build(root):
    return DATASETS.build(
        dict(
            type='ReferringJSONDataset', data_root=str(root), ann_file='own.json',
            data_prefix=dict(img_path='images'), group_by='image',
            pipeline=[dict(type=name) for name in PIPELINE],
        )
    )  # fmt: skip


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
    dataset = build(folder)
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
    (0, dict(points=[[1e9, 2], [3, 4], [1, 5]]), "shape 'cup': a coordinate of segmentation"),
    # beside the mask of the same object
    (1, dict(points=[[1e9, 30], [30, 20]]), "shape 'bowl': a coordinate of segmentation"),
    (2, dict(points=[[50, 10], [70, 14]]), "shape 'bowl': points is"),
    (2, dict(points=[[50, 10], [58, 14]]), '10x5 pixels, annotated as 9x5'),
    (0, dict(description='cup\n' + 1001 * 'x'), "shape 'cup': a line of description is the text"),
    (2, dict(mask='?'), "shape 'bowl': mask is the text"),
    (2, dict(mask='ü'), "shape 'bowl': mask is the text 'ü'; allowed: a PNG in base64"),
    (None, dict(imageWidth=0), 'a.json: imageWidth is 0'),
    (None, dict(imagePath='../../other/a.png'), 'a.json: imagePath is the text'),
    (None, dict(shapes={}), 'a.json: shapes'),
])  # fmt: skip
def test_faults_of_labelme_s_files_are_named(labelme, shape, changes, words):
    _, content, write = labelme
    (content if shape is None else content['shapes'][shape]).update(changes)
    with pytest.raises(ValueError, match=words) as caught:
        write()
    assert 'a.json: ' in str(caught.value)


def test_shapes_that_nobody_describes_are_no_data_set(labelme):
    folder, content, write = labelme
    for shape in content['shapes']:
        shape['description'] = ' '
    with pytest.raises(
        DataError, match='labels: description of shapes is missing; allowed: a sent'
    ):
        write()
    assert not (folder / 'own.json').exists()


def test_a_picture_of_two_of_labelme_s_files_is_told_with_both(labelme):
    folder, content, write = labelme
    (folder / 'labels' / 'b.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=r'labels/b\.json: file_name is .*labels/a\.json has it'):
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
    dataset = build(folder)
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


def test_a_region_with_labels_of_two_controls_is_one_object(label_studio):
    folder, tasks, write = label_studio
    results = tasks[0]['annotations'][1]['result']
    value = dict(results[0]['value'], polygonlabels=['red'])
    results.insert(1, dict(results[0], from_name='colour', value=value))
    write()
    objects = read_referring_json(str(folder / 'own.json')).images[0]['objects']
    assert [one['category'] for one in objects] == ['cup', 'cup']
    drawn = decode_segmentation(objects[0]['segmentation'], HEIGHT, WIDTH)
    np.testing.assert_array_equal(drawn, rectangle(2, 3, 22, 18))


@pytest.mark.parametrize('row, changes, words', [
    (0, dict(value=dict(points=[[1, 2], ['3', 4]])), 'result r1: value: points is'),
    (0, dict(value=dict(points=[[999, 2], [3, 4], [1, 5]])), 'region r1: a coordinate of segm'),
    (0, dict(original_width=None), 'result r1: original_width is None'),
    (0, dict(image_rotation=90), 'result r1: image_rotation is 90; allowed: 0'),
    (0, dict(original_width=WIDTH + 1), 'region r2: original_height and original_width is'),
    (1, dict(value=dict(text=[' '])), 'result r1: value: text is'),
    (1, dict(id='other'), "textarea: id is the text 'other'; allowed: .*perRegion"),
    (2, dict(value=dict(format='rle', rle=[0, 0, 1, 1])), 'region r2: the number of values of rle'),
    (2, dict(value=dict(format='rle', rle=[0, 0, 48, 0])), 'region r2: rle is .*allowed: more'),
    (2, dict(value=dict(format='rle', rle=[0, 0, 999])), 'result r2: value: rle is'),
    (2, dict(id='r1'), "region: id is the text 'r1'; allowed: one that no other region has"),
    (None, dict(data=dict(image='/data/upload/1/gone.png')), 'task 1: image is .*gone.png'),
    (None, dict(data=dict(image='http://[x/a.png')), "task 1: image is the text 'http:.*; allowed"),
    (None, dict(data=dict(image='part/b.png')), 'task 2: file_name is .*export.json: task 1 has'),
    (None, dict(data=dict(picture='a.png')), 'task 1: image is missing'),
    (None, dict(annotations=None), 'task 1: annotations is None'),
])  # fmt: skip
def test_faults_of_label_studio_s_export_are_named(label_studio, row, changes, words):
    _, tasks, write = label_studio
    (tasks[0] if row is None else tasks[0]['annotations'][1]['result'][row]).update(changes)
    with pytest.raises(DataError, match=words) as caught:
        write()
    assert 'export.json: task 1' in str(caught.value)


def test_regions_that_nobody_describes_are_no_data_set(label_studio):
    folder, tasks, write = label_studio
    for task in tasks:
        for annotation in task['annotations']:
            texts = [one for one in annotation['result'] if one['type'] != 'textarea']
            annotation['result'] = texts
    with pytest.raises(
        DataError, match='export.json: text of a TextArea with perRegion is missing'
    ):
        write()
    assert not (folder / 'own.json').exists()
