"""The JSON form of referring data: what is read, and what is said of bad files."""

import copy
import json
import re

import cv2
import numpy as np
import pytest
from check_data import check_data
from mini_refcoco import HEIGHT, WIDTH, compressed
from mmengine.config import Config
from mmseg.registry import METRICS
from nemo_helpers import mosaic_config, write_bank
from own_data import MASKS, picture

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.negatives.bank import BankError
from nemo_mmseg.negatives.leak_guard import LeakError, split_images
from nemo_mmseg.utils.faults import DataError

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
PACK = [dict(type='PackReferringInputs')]


@pytest.mark.parametrize('name', ['own.json', 'own.jsonl'])
def test_items_have_the_masks_of_all_forms(own, name):
    own.write(name)
    dataset = own.build([*LOAD, *PACK], ann_file=name, group_by='image')
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [item['expressions'] for item in items] == [
        ['left box', 'the box', 'both boxes', 'a hat'], ['blue box', 'a dog'], ['last box'],
    ]  # fmt: skip
    assert items[0]['num_targets'] == [1, 1, 2, 0]
    assert items[0]['num_distractors'] == [1, 1, 0, -1], 'the cup is no box'
    assert items[0]['ref_ids'] == [1, 1, 2, 3], 'the same target, the same reference'
    assert items[0]['sent_ids'] == [1, 3, 2, 4] and items[1]['sent_ids'] == [5, 6]
    masks = dataset[SampleIndex(0)]['data_samples'].gt_sem_seg.data.numpy()
    both = np.maximum(MASKS[1], MASKS[2])
    np.testing.assert_array_equal(masks, [MASKS[1], MASKS[1], both, 0 * both])
    masks = dataset[SampleIndex(1)]['data_samples'].gt_sem_seg.data.numpy()
    np.testing.assert_array_equal(masks[0], MASKS[4])
    masks = dataset[SampleIndex(2)]['data_samples'].gt_sem_seg.data.numpy()
    np.testing.assert_array_equal(masks[0], MASKS[5])
    assert dataset.metainfo['dataset_name'] == 'own'


def test_a_box_alone_has_no_mask(own):
    boxes = [dict(type='LoadReferringImage'), dict(type='LoadReferentBoxes'), *PACK]
    dataset = own.build(boxes, split='val')
    assert dataset[SampleIndex(0)]['data_samples'].gt_bboxes == [[[20, 15, 40, 30]]]
    with pytest.raises(ValueError, match=r'annotation 5 of .*3\.png: .*segmentation is None'):
        own.build([*LOAD, *PACK], split='val')[SampleIndex(0)]


def test_splits(own):
    assert len(own.build(split=None)) == 7 and len(own.build(split='val')) == 1
    with pytest.raises(ValueError, match='split test: no reference is left; .*of: train, val'):
        own.build(split='test')
    own.images[1]['expressions'][1]['split'] = 'val'
    assert len(own.write().build(split='val')) == 2, 'that of an expression counts'


def test_ids_of_the_file_count(own):
    texts = own.images[0]['expressions']
    for number, one in enumerate(one for image in own.images for one in image['expressions']):
        one.update(id=100 - number, ref_id=200 + number)
    for number, one in enumerate(own.images):
        one['id'] = 50 + number
    dataset = own.write().build(group_by='image')
    item = dataset.get_data_info(0)
    assert item['img_id'] == 50 and item['sent_ids'] == [100, 99, 98, 97]
    assert item['ref_ids'] == [200, 201, 202, 203]
    texts[2]['ref_id'] = 200
    assert own.write().build(group_by='image').get_data_info(0)['ref_ids'] == [200, 200, 201, 203]


def test_objects_without_category_make_no_distractors_known(own):
    del own.images[0]['objects'][2]['category']
    item = own.write().build(group_by='image').get_data_info(0)
    assert item['num_distractors'] == [-1] * 4


def test_another_text_can_be_read(own):
    for one in (one for image in own.images for one in image['expressions']):
        one['raw'] = one['text'].upper()
    assert own.write().build(text_key='raw').get_data_info(0)['expressions'] == [
        'LEFT BOX', 'THE BOX',
    ]  # fmt: skip


FIRST = 'own.json: image at position 0'


@pytest.mark.parametrize(
    'place, changes, words',
    [
        ([], dict(height=None), f'{FIRST}: height is None'),
        ([], dict(height=30_000, width=3000), f'{FIRST}: height and width'),
        ([], dict(file_name='../1.png'), f'{FIRST}: file_name'),
        ([], dict(file_name='2.png'), "file_name is the text '2.png'; .*position 0 has it"),
        ([], dict(file_name='./2.png'), "file_name is the text '2.png'; .*position 0 has it"),
        ([], dict(objects={}), f'{FIRST}: objects'),
        ([], dict(id=7), 'own.json: image at position 1: id is missing'),
        ([], dict(split=None), f'{FIRST}: split is None'),
        (['objects', 0], dict(id='1'), f'{FIRST}: object at position 0: id'),
        (['objects', 2], dict(id=2), r'object 2: id is 2; .*position 0: object 2 has it'),
        (['objects', 2], dict(id=4), 'position 1: object 4: id is 4; .*: object 4 has it'),
        (['objects', 0], dict(category=1), "category is the text 'box'; .*names of all"),
        (['objects', 0], dict(category=' '), f'{FIRST}: object 1: category'),
        (['objects', 0], dict(mask='../1.png'), f'{FIRST}: object 1: mask'),
        (['objects', 0], dict(bbox=[1, 2, 3]), f'{FIRST}: object 1: bbox'),
        (['objects', 0], dict(segmentation=[[1, 2, 3, 4, 5]]), r'mask and segmentation is \['),
        (['objects', 1], dict(segmentation=None), f'{FIRST}: object 2: segmentation is None'),
        (['objects', 1], dict(segmentation=[[1, 2], 'a']), 'image 1: object 2: segmentation is'),
        (['objects', 1], dict(segmentation=[[1, 2, 3, 4]]), 'object 2: segmentation .* not an emp'),
        (['objects', 1], dict(segmentation=[[1, 2, 3, 4, 5, 6], {}]), 'object 2: segmentation is'),
        (['expressions', 0], dict(text='  '), f'{FIRST}: expression at position 0: text'),
        (['expressions', 0], dict(targets=1), f'{FIRST}: expression at position 0: targets'),
        (['expressions', 0], dict(targets=[1, 1]), 'targets is .1, 1.; .* different objects'),
        (['expressions', 0], dict(targets=[9]), r'targets is .9.; .* of the image: \[1, 2, 3\]'),
        (['expressions', 0], dict(id=5), 'expression at position 1: id is missing'),
        (['expressions', 0], dict(ref_id=5), 'ref_id is missing; allowed: an id, as other'),
        (['expressions', 0], dict(id=True), f'{FIRST}: expression at position 0: id'),
    ],
)  # fmt: skip
def test_a_fault_names_file_entry_field_found_and_allowed(own, place, changes, words):
    one = own.images[0]
    for key in place:
        one = one[key]
    one.update(changes)
    own.write()
    with pytest.raises(DataError, match=f'{words}(.|\n)*') as caught:
        own.build()
    message = str(caught.value)
    assert str(own.root / 'own.json') in message and '; allowed: ' in message
    errors = []
    loose = own.build(lazy_init=True)
    loose.load_reference_list(errors)
    assert message in errors, 'all faults can be listed, too'


@pytest.mark.parametrize('categories, words', [
    ({}, r"own\.json: categories is \{\}; allowed: a list"),
    ([dict(id=1, name='box'), 7], r'own\.json: category at position 1 is 7; allowed: a dict'),
    ([dict(id=1, name='box'), dict(id='2', name='cup')], "position 1: id is the text '2'; allowed"),
])  # fmt: skip
def test_a_faulty_table_of_categories_is_listed_with_all_others(own, categories, words):
    own.images[1]['height'] = None
    (own.root / 'own.json').write_text(json.dumps(dict(images=own.images, categories=categories)))
    errors = []
    references = own.build(lazy_init=True).load_reference_list(errors)
    assert len(errors) == 2 and len(references) == 4
    assert any(re.search(words, error) for error in errors)
    assert any('image at position 1: height is None' in error for error in errors)


@pytest.mark.parametrize('part, key', [
    ([], 'file_name'), ([], 'width'), (['objects', 0], 'id'), (['objects', 0], 'mask'),
    (['expressions', 0], 'text'), (['expressions', 0], 'targets'),
])  # fmt: skip
def test_a_missing_field_is_named(own, part, key):
    one = own.images[0]
    for name in part:
        one = one[name]
    del one[key]
    with pytest.raises(DataError, match=f'{FIRST}.*: {key}.* is missing'):
        own.write().build()


ODD = [None, '', [], [None], {}, True, 1.5, -1, 2**63, float('nan'), '\ud800', [[1, 2, 3]]]


def places(value, path=()):
    """The paths of all values in a value of JSON."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in parts:
        yield (*path, key)
        if isinstance(one, (dict, list)):
            yield from places(one, (*path, key))


def test_whatever_a_field_holds_the_error_is_a_message(own):
    own.images = own.images[:1]
    dataset, refused = own.build(lazy_init=True), 0
    for *path, last in places(copy.deepcopy(own.images[0])):
        for odd in ODD:
            before = copy.deepcopy(own.images)
            one = own.images[0]
            for key in path:
                one = one[key]
            one[last] = odd
            (own.root / 'own.json').write_text(json.dumps(dict(images=own.images)))
            try:
                dataset.load_reference_list()
            except ValueError as error:
                refused += 1
                assert 'own.json' in str(error) and len(str(error)) < 1000
            own.images = before
    assert refused > 300


def test_expressions_of_one_reference_have_the_same_targets(own):
    for number, one in enumerate(one for image in own.images for one in image['expressions']):
        one['ref_id'] = number // 2
    with pytest.raises(DataError, match='position 1: ref_id is 0; allowed: the same for'):
        own.write().build()


def test_lines_are_named(own):
    del own.images[1]['width']
    own.write('own.jsonl')
    with pytest.raises(DataError, match='own.jsonl: line 2: width is missing'):
        own.build(ann_file='own.jsonl')
    path = own.root / 'own.jsonl'
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match='own.jsonl: line 4 is not valid JSON'):
        own.build(ann_file='own.jsonl')


@pytest.mark.parametrize('text', ['[]', '{}', '{"images": {}}', '{"images": []}', '{"images": [{'])
def test_other_files_are_refused(own, text):
    (own.root / 'own.json').write_text(text)
    with pytest.raises(ValueError, match=r'own\.json'):
        own.build()


def test_missing_and_wrong_masks_are_named(own):
    small = own.root / 'masks' / '6.png'
    cv2.imwrite(str(small), MASKS[5][:-1])
    dataset = own.build([*LOAD, *PACK], group_by='image')
    with pytest.raises(
        ValueError, match=r'annotation 6 of .*4\.png: .*6\.png is 64x47 pixels, ann'
    ):
        dataset[SampleIndex(2)]
    cv2.imwrite(str(small), 0 * MASKS[5])
    with pytest.raises(ValueError, match='annotation 6 of .*its mask is empty'):
        dataset[SampleIndex(2)]
    small.unlink()
    with pytest.raises(FileNotFoundError, match='1 masks of the split are not in .*: .6.png'):
        own.build()


def test_check_data_looks_at_all(own):
    cfg = Config(dict(val_dataloader=dict(dataset=own.config(split=None))))
    (report,) = check_data(cfg, ['val'], progress=False)
    assert not report.errors
    assert report.counts == dict(
        references=7, expressions=8, images=4, objects=5, multi_target=1, no_target=2
    )
    assert any('1 objects have a box alone' in remark for remark in report.remarks)
    cv2.imwrite(str(own.root / 'masks' / 'part' / '1.png'), MASKS[1][:-1])
    cv2.imwrite(str(own.root / 'masks' / '6.png'), np.dstack([*3 * [255 * MASKS[5]], MASKS[5]]))
    (report,) = check_data(cfg, ['val'], progress=False)
    assert '6.png is a PNG with alpha' in report.errors[1]
    (own.root / 'masks' / '6.png').unlink()
    (report,) = check_data(cfg, ['val'], progress=False)
    assert len(report.errors) == 2 and '64x47' in report.errors[0] and '6.png' in report.errors[1]
    (report,) = check_data(cfg, ['val'], decode=False, progress=False)
    assert len(report.errors) == 1 and '6.png' in report.errors[0]


def test_a_mosaic_of_mined_negatives(own):
    for one in own.images:
        one['expressions'] = [one for one in one['expressions'] if len(one['targets']) == 1]
    for number in (5, 6):
        own.images.append(picture(number, [dict(id=10 + number, segmentation=compressed(MASKS[2]))],
                                [('thing', [10 + number])]))  # fmt: skip
    own.write()
    for number in (5, 6):
        pixels = np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)
        cv2.imwrite(str(own.root / 'images' / f'{number}.png'), pixels)
    bank = own.root / 'bank.safetensors'
    pipeline = [
        dict(type='SampleExpressions'),
        mosaic_config(transforms=LOAD, bank=dict(path=str(bank)), mined=1.0, tau=0.95, top_k=3),
        *PACK,
    ]
    write_bank(own.build(), bank, [0.1, 0.2, 0.3, 0.4, 0.5])
    dataset = own.build(pipeline)
    sample = dataset[SampleIndex(0)]
    assert sample['data_samples'].mosaic['kind'] == 'mined'
    assert sample['data_samples'].gt_sem_seg.data.sum() > 0
    own.images[0]['expressions'][0]['text'] = 'another box'
    with pytest.raises(BankError, match='expressions differ'):
        own.write().build(pipeline)[SampleIndex(0)]


def test_scores_and_slices(own):
    dataset = own.build([*LOAD, *PACK], group_by='image')
    metric = METRICS.build(dict(type='ReferringIoU', by=['distractors', 'length']))
    for index in range(len(dataset)):
        sample = dataset[SampleIndex(index)]['data_samples']
        sample.pred_sem_seg = sample.gt_sem_seg.clone()
        metric.process(None, [sample.to_dict()])
    found = metric.evaluate(len(dataset))
    assert found['oIoU'] == found['mIoU'] == 100 and found['expressions'] == 7
    # left box, the box: one; both boxes, blue box, last box: none; a hat, a dog: unknown
    assert {key for key in found if key.startswith('distractors')} == {
        f'distractors={label}/{key}' for label in ('0', '1', 'unknown') for key in ('oIoU', 'mIoU')
    }


def test_the_leak_guard_knows_the_splits(own):
    assert split_images(str(own.root / 'own.json')) == {
        'train': {'1.png', '2.png', '4.png'}, 'val': {'3.png'},
    }  # fmt: skip
    guard = dict(split_files=['own.json'], data_root=str(own.root))
    own.build(leak_guard=guard)
    with pytest.raises(LeakError, match='1 of own.json val'):
        own.build(split='val', leak_guard=guard)
