"""Predicted masks become a data set that trains like any other."""

import errno
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from pycocotools import mask as coco_mask

import nemo_mmseg  # noqa: F401  (registers)
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.evaluation.predictions import describe_mask
from nemo_mmseg.pseudo_labels.predictions import predictions_to_json
from nemo_mmseg.pseudo_labels.predictions import predictions_to_refcoco as convert
from nemo_mmseg.utils.faults import DataError
from nemo_mmseg.utils.referring_json import read_referring_json

HEIGHT, WIDTH = 30, 40
# sent_id -> reference, image, columns of the predicted mask, score
PREDICTIONS = {
    1: (11, 5, (2, 9), 0.6),
    2: (11, 5, (0, 4), 0.9),  # the better one of reference 11
    3: (12, 5, (20, 30), 0.5),
    4: (13, 6, (0, 0), 0.0),  # empty, and so is the other one of reference 13
    5: (13, 6, (0, 0), 0.0),
    6: (14, 6, (5, 6), 0.1),
}


def mask_of(columns) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:20, slice(*columns)] = True
    return mask


@pytest.fixture
def folder(tmp_path):
    """References of four objects, and what `tools/test.py --out` writes of them."""
    refs = {}
    for sent_id, (ref_id, image, _, _) in PREDICTIONS.items():
        ref = refs.setdefault(
            ref_id,
            dict(ref_id=ref_id, ann_id=100 + ref_id, image_id=image, category_id=7, split='train',
                 sentences=[], sent_ids=[]),
        )  # fmt: skip
        ref['sent_ids'].append(sent_id)
        ref['sentences'].append(dict(sent_id=sent_id, sent=f'thing {sent_id}'))
    (tmp_path / 'refs(unc).p').write_bytes(pickle.dumps(list(refs.values()), protocol=2))
    records = [
        dict(sent_id=sent_id, ref_id=ref_id, image_id=image, image=f'/data/{image}.png',
             expression=f'thing {sent_id}', score=score, **describe_mask(mask_of(columns)))
        for sent_id, (ref_id, image, columns, score) in PREDICTIONS.items()
    ]  # fmt: skip
    content = dict(dataset='mini', predictions=records)
    (tmp_path / 'predictions.json').write_text(json.dumps(content))
    (tmp_path / 'images').mkdir()
    for image in (5, 6):
        pixels = np.full((HEIGHT, WIDTH, 3), 40 * image, np.uint8)
        cv2.imwrite(str(tmp_path / 'images' / f'{image}.png'), pixels)
    return tmp_path


def test_a_data_set_trains_on_predictions(folder):
    written = convert(str(folder), str(folder / 'refs(unc).p'), str(folder / 'pseudo'))
    assert written == (3, 1)
    info = json.loads((folder / 'pseudo' / 'instances.json').read_text())['info']
    assert info['dataset'] == 'mini' and info['predictions'].endswith('predictions.json')
    dataset = DATASETS.build(
        dict(
            type='RefCOCODataset',
            data_root=str(folder),
            ann_file='pseudo/instances.json',
            split_file='pseudo/refs(unc).p',
            split='train',
            data_prefix=dict(img_path='images'),
            pipeline=[
                dict(type='SampleExpressions'),
                dict(type='LoadReferringImage'),
                dict(type='LoadReferentMask'),
                dict(type='PackReferringInputs'),
            ],
        )
    )
    expected = {11: (0, 4), 12: (20, 30), 14: (5, 6)}
    samples = [dataset[SampleIndex(index, 0, 0)]['data_samples'] for index in range(len(dataset))]
    assert [sample.ref_ids[0] for sample in samples] == list(expected)
    for sample, columns in zip(samples, expected.values()):
        mask = sample.gt_sem_seg.data.numpy()[0]
        assert np.array_equal(mask, mask_of(columns)) and sample.expressions[0].startswith('thing')


def test_predictions_in_the_json_form(folder):
    file, out = folder / 'predictions.json', folder / 'pseudo.json'
    content = json.loads(file.read_text())
    content['predictions'][5]['predicted_no_target'] = True
    # an empty mask beside another one of the same object: the expression stays
    content['predictions'][0].update(describe_mask(mask_of((0, 0))))
    file.write_text(json.dumps(content))
    assert predictions_to_json(str(folder), str(out), '/data', 'train') == (4, 2)
    data = read_referring_json(str(out))
    assert data.head['info']['dataset'] == 'mini'
    assert [image['file_name'] for image in data.images] == ['5.png', '6.png']
    expressions = {one['id']: one for image in data.images for one in image['expressions']}
    targets = {key: one['targets'] for key, one in expressions.items()}
    assert targets == {1: [11], 2: [11], 3: [12], 6: []}
    assert expressions[3]['text'] == 'thing 3' and expressions[3]['split'] == 'train'
    objects = {one['id']: one for image in data.images for one in image['objects']}
    assert objects[11]['bbox'] == [0, 3, 4, 17] and objects.keys() == {11, 12}
    assert np.array_equal(coco_mask.decode(objects[11]['segmentation']), mask_of((0, 4)))
    content['predictions'][0]['expression'] = ' '
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match='prediction 1: expression is'):
        predictions_to_json(str(folder), str(out))


def test_predictions_of_other_data_are_refused(folder):
    refs = pickle.loads((folder / 'refs(unc).p').read_bytes())
    refs[1]['sent_ids'] = [30]
    (folder / 'refs(unc).p').write_bytes(pickle.dumps(refs, protocol=2))
    with pytest.raises(ValueError, match='expression 3 is none of its reference 12'):
        convert(str(folder), str(folder / 'refs(unc).p'), str(folder / 'pseudo'))
    assert not (folder / 'pseudo').exists()


@pytest.mark.parametrize('name', ['refs(unc).p', 'instances.json'])
def test_annotations_that_are_there_are_not_replaced(folder, name):
    out = folder / 'downloaded'
    out.mkdir()
    (out / name).write_text('published')
    with pytest.raises(FileExistsError, match='replaces no files'):
        convert(str(folder), str(folder / 'refs(unc).p'), str(out))
    assert [one.name for one in out.iterdir()] == [name]
    assert (out / name).read_text() == 'published'


def test_half_a_data_set_is_not_left(folder, monkeypatch):
    """A disk that is full when the second file is written."""

    for method in ('write_bytes', 'write_text'):
        write = getattr(Path, method)

        def until_full(path, *arguments, write=write):
            if 'instances' in path.name:
                raise OSError(errno.ENOSPC, 'No space left on device')
            return write(path, *arguments)

        monkeypatch.setattr(Path, method, until_full)
    with pytest.raises(OSError, match='No space left'):
        convert(str(folder), str(folder / 'refs(unc).p'), str(folder / 'pseudo'))
    assert not list((folder / 'pseudo').iterdir())


def test_names_with_folders(folder):
    file = folder / 'predictions.json'
    content = json.loads(file.read_text())
    for record in content['predictions']:
        record['image'] = f'/data/part{record["image_id"]}/x.png'
    file.write_text(json.dumps(content))
    paths = str(folder), str(folder / 'refs(unc).p'), str(folder / 'pseudo')
    with pytest.raises(ValueError, match=r'/data/part6/x\.png.* have one name: give --images'):
        convert(*paths)
    with pytest.raises(ValueError, match='/elsewhere'):
        convert(*paths, '/elsewhere')
    convert(*paths, '/data')
    images = json.loads((folder / 'pseudo' / 'instances.json').read_text())['images']
    assert [image['file_name'] for image in images] == ['part5/x.png', 'part6/x.png']


SIZE, GONE = [HEIGHT, WIDTH], object()


def change(file, place, value):
    """Put a value into the first record of a file."""
    if file.suffix == '.json':
        content = json.loads(file.read_text())
        content['predictions'][0][place] = value
        if value is GONE:
            del content['predictions'][0][place]
        file.write_text(json.dumps(content))
    else:
        refs = pickle.loads(file.read_bytes())
        refs[0][place] = value
        file.write_bytes(pickle.dumps(refs, protocol=2))


@pytest.mark.parametrize(
    'name, entry, place, values',
    [
        ('predictions.json', 'prediction 1', 'score', ([0.5], 'a', True)),
        ('predictions.json', 'prediction 1', 'ref_id', (None, '11', {}, 11.0)),
        ('predictions.json', 'prediction 1', 'image_id', (None, '5', [5], -1)),
        ('predictions.json', 'prediction 1', 'image', (None, 0.5, '', ['x'])),
        ('predictions.json', 'prediction 1', 'area', (None, '5', -1, 0.5)),
        ('predictions.json', 'prediction 1', 'bbox', (GONE, None, [1, 2], 'abcd', [1, 2, 3, None])),
        (
            'predictions.json', 'prediction 1', 'rle',
            (None, [], {}, dict(size=[1], counts=''), dict(size=[0, 5], counts=''),
             dict(size=['30', 40], counts='')),
        ),
        (
            'predictions.json', 'prediction 1', 'segmentation',
            (dict(size=SIZE, counts=''), dict(size=SIZE, counts='o'), dict(size=SIZE, counts=None)),
        ),
        ('refs(unc).p', 'reference 11', 'ann_id', (None, [111], '111', {})),
        ('refs(unc).p', 'reference 11', 'category_id', (None, '7', {}, 7.0)),
        ('refs(unc).p', 'reference 11', 'sent_ids', (None, 5, ['1'], [[1]])),
        ('refs(unc).p', 'reference 11', 'image_id', (None, '5', {})),
        ('refs(unc).p', 'reference at position 0', 'ref_id', (None, [11], {}, '11')),
    ],
)  # fmt: skip
def test_a_field_that_holds_something_else_is_named(folder, name, entry, place, values):
    before = (folder / name).read_bytes()
    for value in values:
        (folder / name).write_bytes(before)
        change(folder / name, 'rle' if place == 'segmentation' else place, value)
        with pytest.raises(ValueError, match='; allowed: ') as caught:
            convert(str(folder), str(folder / 'refs(unc).p'), str(folder / 'pseudo'))
        message = str(caught.value)
        assert f'{folder / name}: {entry}: ' in message and place in message, value
        assert not (folder / 'pseudo').exists()
