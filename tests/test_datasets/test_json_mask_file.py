"""Masks of another file, as pseudo masks are, in the place of those of the JSON form."""

import json

import numpy as np
import pytest
from check_data import check_data
from mini_refcoco import HEIGHT, WIDTH, compressed
from mmengine.config import Config
from own_data import MASKS

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.utils.faults import DataError

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
PACK = [dict(type='PackReferringInputs')]


def mask_file(own, masks, **changes):
    """Masks of objects by id, in COCO's layout, as pseudo masks are."""
    images = {one['id']: row for row, image in enumerate(own.images, 1) for one in image['objects']}
    annotations = [
        dict(id=number, image_id=images[number], category_id=0, segmentation=compressed(mask))
        for number, mask in masks.items()
    ]
    annotations[0].update(changes)
    sizes = [dict(id=row, file_name='x.png', height=HEIGHT, width=WIDTH) for row in range(1, 5)]
    (own.root / 'made.json').write_text(json.dumps(dict(images=sizes, annotations=annotations)))


def test_masks_of_a_file_take_the_place_of_the_annotated_ones(own):
    made = {1: MASKS[5], 2: MASKS[4], 4: MASKS[1], 6: MASKS[2]}
    mask_file(own, made)
    dataset = own.build([*LOAD, *PACK], mask_file='made.json', group_by='image')
    plain = own.build(group_by='image')
    for index in range(len(plain)):
        one, other = dataset.get_data_info(index), plain.get_data_info(index)
        for key in ('expressions', 'sent_ids', 'ref_ids', 'num_targets', 'num_distractors'):
            assert one[key] == other[key]
    masks = dataset[SampleIndex(0)]['data_samples'].gt_sem_seg.data.numpy()
    both = np.maximum(MASKS[5], MASKS[4])
    np.testing.assert_array_equal(masks, [MASKS[5], MASKS[5], both, 0 * both])
    masks = dataset[SampleIndex(2)]['data_samples'].gt_sem_seg.data.numpy()
    np.testing.assert_array_equal(masks[0], MASKS[2])
    assert dataset.fingerprint == plain.fingerprint, 'one bank serves both'


def test_objects_that_a_file_has_no_mask_of_are_named_or_left_out(own):
    mask_file(own, {1: MASKS[5], 4: MASKS[1]})
    # "both boxes" and "last box"
    message = r'2 of 7 expressions have no mask in .*made\.json: 2, 8\. unlabelled="leave_out"'
    with pytest.raises(DataError, match=message):
        own.build(mask_file='made.json')
    dataset = own.build(mask_file='made.json', unlabelled='leave_out', group_by='image')
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    left = [['left box', 'the box', 'a hat'], ['blue box', 'a dog']]
    assert [item['expressions'] for item in items] == left
    with pytest.raises(ValueError, match="unlabelled must be 'error' or 'leave_out', not 'no'"):
        own.build(unlabelled='no')


def test_check_data_lists_the_faults_of_a_file_of_masks_with_all_others(own):
    own.images[1]['expressions'][0]['text'] = ' '
    own.write()
    mask_file(own, {2: MASKS[5], 1: MASKS[1], 6: MASKS[2]}, image_id=3)
    cfg = Config(dict(val_dataloader=dict(dataset=own.config(mask_file='made.json'))))
    (report,) = check_data(cfg, ['val'], progress=False)
    for words in ('text is', 'annotation 2: image_id is 3', 'expressions have no mask in'):
        assert any(words in error for error in report.errors), (words, report.errors)
    assert report.counts['expressions'] > 0, 'the others are looked at'


@pytest.mark.parametrize('changes, words', [
    (dict(image_id=2), r'annotation 1: image_id is 2; allowed: 1, the image of the object'),
    (dict(id='1'), "annotation at position 0: id is the text '1'"),
    (dict(segmentation=compressed(MASKS[1][:-1])), r'annotation 1: size of segmentation is'),
    (dict(segmentation=None), 'annotation 1: segmentation is None'),
])  # fmt: skip
def test_faults_of_a_file_of_masks_are_named(own, changes, words):
    masks = {number: MASKS[1] for number in (1, 2, 4, 6)}
    mask_file(own, masks, **changes)
    with pytest.raises(DataError, match=rf'made\.json: {words}'):
        own.build(mask_file='made.json')
