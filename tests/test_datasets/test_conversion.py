"""Converters: round trips lose nothing, and other forms give the masks that they show."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from mini_refcoco import HEIGHT, WIDTH, MiniGRefCOCO, compressed, rectangle
from mmseg.registry import DATASETS

from nemo_mmseg.datasets.conversion import (
    coco_captions_to_json,
    json_to_refcoco,
    refcoco_to_json,
)
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.segmentation import MaskFile, decode_segmentation
from nemo_mmseg.utils.faults import DataError
from nemo_mmseg.utils.fileio import load_plain_pickle
from nemo_mmseg.utils.referring_json import read_referring_json

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
PACK = [dict(type='PackReferringInputs')]
PHOTOGRAPHS = Path(__file__).resolve().parents[1] / 'data' / 'photographs'
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


def test_photographs_there_and_back(tmp_path):
    """Hand-drawn polygons of three photographs; the pixels do not matter, so they are black."""
    files = PHOTOGRAPHS / 'refs(unc).p', PHOTOGRAPHS / 'instances.json'
    for image in read(files[1])['images']:
        pixels = np.zeros((image['height'], image['width'], 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / image['file_name']), pixels)
    refcoco_to_json(*map(str, files), str(tmp_path / 'unc.json'))
    assert json_to_refcoco(str(tmp_path / 'unc.json'), str(tmp_path / 'back')) == files[0].name
    assert [read(tmp_path / 'back' / file.name) for file in files] == [read(file) for file in files]
    images = dict(img_path=str(tmp_path))
    published, back = (
        build('RefCOCODataset', root, 'train', ann_file='instances.json', split_file='refs(unc).p',
              data_prefix=images) for root in (PHOTOGRAPHS, tmp_path / 'back')
    )  # fmt: skip
    ours = build('ReferringJSONDataset', tmp_path, 'train', ann_file='unc.json', data_prefix=images)
    assert sum(len(item['expressions']) for item in map(ours.get_data_info, range(len(ours)))) > 10
    assert_same_items(published, ours)
    assert_same_items(published, back)


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


def test_ref_zom_there_and_back(tmp_path):
    data = MiniGRefCOCO(tmp_path)
    for ref, source in zip(data.refs, ('one', 'many', 'zero', 'zero', 'zero')):
        ref['source'] = source
    data.refs[3]['ann_id'] = []  # nobody looks at it
    data.write()
    refcoco_to_json(*(str(tmp_path / one) for one in FILES))
    shared = dict(data_prefix=dict(img_path='images'))
    ours = build('ReferringJSONDataset', tmp_path, 'train', ann_file='x.json', **shared)
    files = dict(ann_file='mini/instances.json', split_file='mini/grefs(unc).json')
    assert_same_items(build('RefZOMDataset', tmp_path, 'train', **files, **shared), ours)
    name = json_to_refcoco(str(tmp_path / 'x.json'), str(tmp_path / 'back'))
    assert read(tmp_path / 'back' / name) == data.refs


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
    (lambda data: data.refs[0].update(id=99), 'reference 1: id is 99; allowed: a field of anoth'),
    (lambda data: data.refs[0]['sentences'][0].update(sent=''), 'expression 10: sent is'),
    (lambda data: data.instances['annotations'][0].update(image_id=77), 'annotation 101: image_id'),
    (lambda data: data.instances['images'].append(data.instances['images'][0]), 'image 1: id is 1'),
    (lambda data: data.refs.append(data.refs[0]), 'reference 1: ref_id is 1; allowed: one that no'),
    (lambda data: data.refs[1]['sentences'][0].update(sent_id=10), 'nce 2: expression 10: sent_id'),
    (lambda data: data.refs[0]['sentences'][0].update(exist=False), '10: exist is False; allowed'),
    (lambda data: data.instances['annotations'][0].update(category='cup'), '101: category is'),
    (lambda data: data.instances['annotations'][0].update(mask='1.png'), '101: mask is the text'),
    (lambda data: data.instances['images'][0].update(objects=[7]), r'image 1: objects is \[7\]'),
])  # fmt: skip
def test_faults_of_refcoco_s_files_are_named(tmp_path, change, words):
    data = MiniGRefCOCO(tmp_path)
    change(data)
    data.write()
    with pytest.raises(DataError, match=words):
        refcoco_to_json(*(str(tmp_path / one) for one in FILES))
    assert not (tmp_path / 'x.json').exists()


@pytest.mark.parametrize('changes, words', [
    # a pasted annotation of COCO, whose image is another one
    (dict(objects=[dict(id=1, bbox=[1, 2, 3, 4], image_id=77)]), 'object 1: image_id is 77'),
    (dict(objects=[dict(id=1, bbox=[1, 2, 3, 4], category_id=9)]), 'object 1: category_id is 9'),
    (dict(expressions=[dict(text='cup', targets=[1], sent_id='q')]), "1: sent_id is the text 'q'"),
    (dict(expressions=[dict(text='cup', targets=[1], sent='Cup')]), '1: sent is the text'),
    # references that nobody describes must say all themselves
    (dict(references=[dict(id=5)]), 'own.json: reference 5: split is missing; allowed: the na'),
    (dict(references=[dict(id=5, split='val')]), 'own.json: reference 5: image_id is missing; a'),
    (dict(references=[dict(id=5, ref_id=6)]), 'reference 5: ref_id is 6'),
    (dict(references=[dict(id=1, image_id=4)]), 'reference 1: image_id is 4; allowed: 1, its im'),
    (dict(references=[dict(id=1), dict(id=1)]), 'reference 1: id is 1; allowed: one that no other'),
    (dict(references=[dict(id=1, sentences=2 * [dict(sent_id=1, sent='cup')])]),
     'reference 1: expression 1: sent_id is 1; allowed: one that no other entry has'),
    (dict(references=[dict(id=1, ann_id=8)]), 'reference 1: ann_id is 8; allowed: annotations of'),
])  # fmt: skip
def test_what_would_not_be_what_it_says_in_refcoco_s_layout_is_refused(tmp_path, changes, words):
    image = dict(
        file_name='a.jpg', height=HEIGHT, width=WIDTH, objects=[dict(id=1, bbox=[1, 2, 3, 4])],
        expressions=[dict(text='cup', targets=[1])],
    )  # fmt: skip
    (tmp_path / 'own.json').write_text(json.dumps(dict(images=[dict(image, **changes)])))
    with pytest.raises(DataError, match=words):
        json_to_refcoco(str(tmp_path / 'own.json'), str(tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['refs(x).p', 'grefs(x).json', 'instances.json'])
def test_published_files_are_not_replaced(mini, tmp_path, name):
    files = [str(mini.root / 'mini' / one) for one in ('refs(unc).p', 'instances.json')]
    refcoco_to_json(*files, str(tmp_path / 'x.json'))
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / name).write_text('published')
    with pytest.raises(FileExistsError, match='replaces no files'):
        json_to_refcoco(str(tmp_path / 'x.json'), str(tmp_path / 'out'))
    assert [one.name for one in (tmp_path / 'out').iterdir()] == [name]
    assert (tmp_path / 'out' / name).read_text() == 'published'


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


def test_bad_captions_are_named(mini, tmp_path):
    path, out = tmp_path / 'captions.json', tmp_path / 'own.json'
    path.write_text(json.dumps(mini.instances))
    with pytest.raises(DataError, match='captions.json: caption of annotations is missing; allow'):
        coco_captions_to_json(str(path), str(out))
    mini.instances['annotations'][1].update(caption='box', segmentation=compressed(masks_of(24)))
    path.write_text(json.dumps(mini.instances))
    with pytest.raises(
        DataError, match=r'annotation 102: size of segmentation is \[24, 64\]; allow'
    ):
        coco_captions_to_json(str(path), str(out))
    for box in ([1, 2, 3], None):
        whole = compressed(masks_of(HEIGHT))
        mini.instances['annotations'][1].update(bbox=box, segmentation=whole)
        path.write_text(json.dumps(mini.instances))
        with pytest.raises(DataError, match='captions.json: image 2: object 102: bbox is .*four'):
            coco_captions_to_json(str(path), str(out))
    mini.instances['annotations'][1].update(image_id=77)
    path.write_text(json.dumps(mini.instances))
    with pytest.raises(
        DataError, match='annotation 102: image_id is 77; allowed: the id of an ima'
    ):
        coco_captions_to_json(str(path), str(out))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r'captions\.json.* not valid JSON'):
        coco_captions_to_json(str(path), str(out))
    assert not out.exists()


@pytest.mark.parametrize('key', ['id', 'image_id', 'category', 'bbox', 'segmentation', 'mask'])
def test_captions_do_not_take_a_field_of_the_layout(mini, tmp_path, key):
    path, out = tmp_path / 'captions.json', tmp_path / 'own.json'
    mini.instances['annotations'] = [
        dict(one, segmentation='box') for one in mini.instances['annotations']
    ]
    path.write_text(json.dumps(mini.instances))
    with pytest.raises(ValueError, match=f"captions cannot be in '{key}'"):
        coco_captions_to_json(str(path), str(out), key)
    assert not out.exists()


def masks_of(height):
    return np.ones((height, WIDTH), np.uint8)


@pytest.mark.parametrize('height', [None, HEIGHT - 1])
def test_a_missing_mask_and_one_of_another_size_are_named(tmp_path, height):
    objects = [dict(id=5, mask='one.png')]
    image = dict(file_name='1.jpg', height=HEIGHT, width=WIDTH, objects=objects)
    image['expressions'] = [dict(text='cup', targets=[5])]
    (tmp_path / 'own.json').write_text(json.dumps(dict(images=[image])))
    error, words = FileNotFoundError, r'own\.json: image 1: object 5: .*one\.png'
    if height:
        cv2.imwrite(str(tmp_path / 'one.png'), masks_of(height))
        error, words = (
            ValueError,
            r'own\.json: image 1: object 5: .*one\.png is 64x47 pixels, annot',
        )
    with pytest.raises(error, match=words):
        json_to_refcoco(str(tmp_path / 'own.json'), str(tmp_path / 'out'))
    assert not (tmp_path / 'out' / 'instances.json').exists()


def test_written_pickles_hold_no_shared_surprises(mini, tmp_path):
    """REFER's own readers use plain `pickle.load`."""
    folder = mini.root / 'mini'
    refcoco_to_json(str(folder / 'refs(unc).p'), str(folder / 'instances.json'),
                    str(tmp_path / 'x.json'))  # fmt: skip
    json_to_refcoco(str(tmp_path / 'x.json'), str(tmp_path))
    assert pickle.loads((tmp_path / 'refs(x).p').read_bytes()) == mini.refs
