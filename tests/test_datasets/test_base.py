"""RefCOCODataset: items, grouping, subsets, pool, fingerprint, warnings, bad images."""

import pickle
import warnings

import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from mmseg.registry import DATASETS

from nemo_mmseg.datasets.samplers import SampleIndex

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
PACK = [dict(type='PackReferringInputs')]
# Of the data in conftest.py. Banks carry such digests, so no change of the code may change them.
FINGERPRINT = '7f6c8f4c8b201fe2d1aa0385e79d6ea37b83e7f410cf2f40aa82303e020d8d58'


def test_group_by_reference_expression_and_image(mini):
    lengths = {}
    for group_by in ('reference', 'expression', 'image'):
        dataset = DATASETS.build(mini.config(group_by=group_by))
        items = [dataset.get_data_info(i) for i in range(len(dataset))]
        lengths[group_by] = len(items)
        sent_ids = sorted(s for item in items for s in item['sent_ids'])
        assert sent_ids == [10, 11, 12, 20, 30, 31, 40, 41, 50]
    assert lengths == dict(reference=5, expression=9, image=4)
    # Image 1 holds references 1 and 5, whose targets are its two instances.
    assert items[0]['ref_ids'] == [1, 1, 1, 5]
    assert items[0]['targets'] == [[0], [0], [0], [1]]
    assert [instance['ann_id'] for instance in items[0]['instances']] == [101, 201]
    with pytest.raises(ValueError, match='group_by'):
        DATASETS.build(mini.config(group_by='sentence'))


def test_an_item_of_an_image_has_one_mask_an_expression_at_original_size(mini):
    dataset = DATASETS.build(mini.config(LOAD + PACK, group_by='image', test_mode=True))
    sample = dataset[0]['data_samples']
    masks = [mini.masks[101]] * 3 + [mini.masks[201]]
    np.testing.assert_array_equal(sample.gt_sem_seg.data.numpy(), np.stack(masks))
    assert sample.expressions == ['left box', 'the box on top', 'box', 'the other box']
    assert (sample.image_id, sample.ref_ids) == (1, [1, 1, 1, 5])
    assert sample.num_distractors == [1, 1, 1, 1]


@pytest.mark.parametrize('ann_id', [101, 102, 103])
def test_polygons_and_both_rle_give_the_same_masks(mini, ann_id):
    dataset = DATASETS.build(mini.config(LOAD + PACK, group_by='reference'))
    mask = dataset[ann_id - 101]['data_samples'].gt_sem_seg.data.numpy()
    np.testing.assert_array_equal(mask[0], mini.masks[ann_id])


def test_expressions_are_sorted_and_point_at_their_image(mini):
    dataset = DATASETS.build(mini.config())
    sent_ids, texts, rows = dataset.expressions()
    assert sent_ids.tolist() == [10, 11, 12, 20, 30, 31, 40, 41, 50]
    assert texts[3] == 'green box'
    names = [dataset.pool.names[row] for row in rows]
    assert names == ['image_1.jpg'] * 3 + ['image_2.jpg'] + ['image_3.jpg'] * 2 + [
        'image_4.jpg'
    ] * 2 + ['image_1.jpg']


@pytest.mark.filterwarnings('ignore:.* values of sent_id')
def test_expressions_of_equal_ids_do_not_follow_the_grouping(mini):
    for ref in mini.refs:
        for sentence in ref['sentences']:
            sentence['sent_id'] //= 20
    mini.write()
    found = [
        DATASETS.build(mini.config(group_by=group)).expressions()
        for group in ('reference', 'expression', 'image')
    ]
    wanted = sorted(zip(*(list(column) for column in found[0])))
    for columns in found:
        assert list(zip(*(list(column) for column in columns))) == wanted


def test_fingerprint_depends_on_the_data_and_not_on_the_grouping(mini):
    prints = [
        DATASETS.build(mini.config(group_by=g)).fingerprint
        for g in ('reference', 'expression', 'image')
    ]
    assert set(prints) == {FINGERPRINT}
    mini.refs[0]['sentences'][0]['sent'] = 'left red box'
    assert DATASETS.build(mini.write().config()).fingerprint != FINGERPRINT


# Items 0 and 4 show image 1.
@pytest.mark.parametrize(
    ('indices', 'positions', 'siblings'),
    [
        (3, [0, 1, 2], [[], [], []]),
        (-2, [3, 4], [[], []]),
        ([4, 0, 2], [4, 0, 2], [[1], [0], []]),
    ],
    ids=str,
)
def test_parts_of_a_data_set(mini, indices, positions, siblings):
    """Pool and fingerprint are those of the part, but get_subset keeps those of the whole."""
    whole, part = (DATASETS.build(mini.config(**kw)) for kw in ({}, dict(indices=indices)))
    subset = whole.get_subset(indices)
    for found in (part, subset):
        items = [found.get_data_info(index) for index in range(len(found))]
        assert [item['siblings'] for item in items] == siblings
        for item, position in zip(items, positions, strict=True):
            same = dict(sample_idx=position, siblings=whole.get_data_info(position)['siblings'])
            assert dict(item, **same) == whole.get_data_info(position)
    names = sorted({f'image_{[1, 2, 3, 4, 1][position]}.jpg' for position in positions})
    assert part.pool.names.tolist() == names and part.fingerprint != FINGERPRINT
    assert subset.fingerprint == FINGERPRINT and len(whole) == 5


def test_an_image_with_all_its_expressions_has_no_siblings(mini):
    dataset = DATASETS.build(mini.config(group_by='image'))
    assert [dataset.get_data_info(i)['siblings'] for i in range(4)] == [[]] * 4


def test_the_data_set_pickles_with_its_pool(mini):
    dataset = DATASETS.build(mini.config(LOAD + PACK))
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.pool.path(0) == dataset.pool.path(0)
    np.testing.assert_array_equal(copy[1]['inputs'], dataset[1]['inputs'])


def test_items_are_serialised_for_workers(mini):
    dataset = DATASETS.build(mini.config())
    assert dataset.data_list == [] and dataset.data_bytes.dtype == np.uint8


def test_a_missing_image_is_named_when_the_data_set_is_built(mini):
    (mini.root / 'images' / 'image_3.jpg').unlink()
    with pytest.raises(FileNotFoundError, match="1 images .* the first: 'image_3.jpg'"):
        DATASETS.build(mini.config())


def test_unreadable_or_resized_images_are_named_at_first_decode(mini):
    (mini.root / 'images' / 'image_2.jpg').write_bytes(b'no image')
    cv2.imwrite(str(mini.root / 'images' / 'image_3.jpg'), np.zeros((20, 30, 3), np.uint8))
    dataset = DATASETS.build(mini.config(LOAD + PACK))
    with pytest.raises(ValueError, match='cannot read the image .*image_2.jpg'):
        dataset[1]
    with pytest.raises(ValueError, match='image_3.jpg is 30x20 pixels, annotated as 64x48'):
        dataset[2]


def test_a_mask_that_is_empty_is_named(mini):
    mini.instances['annotations'][1]['segmentation'] = [[70, 50, 80, 50, 80, 60]]
    dataset = DATASETS.build(mini.write().config(LOAD + PACK))
    with pytest.raises(ValueError, match='annotation 102 of .*image_2.jpg: its mask is empty'):
        dataset[1]


def test_a_published_split_with_another_count_warns_with_both_numbers(mini):
    (mini.root / 'mini').rename(mini.root / 'refcoco')
    config = mini.config(ann_file='refcoco/instances.json', split_file='refcoco/refs(unc).p')
    with pytest.warns(UserWarning, match='split train: 5 references, .* but 42404'):
        DATASETS.build(config)


def test_an_index_without_its_epoch_is_one_of_epoch_0_and_warns_once_in_training(mini):
    dataset = DATASETS.build(mini.config(LOAD + PACK))
    with pytest.warns(UserWarning, match='every epoch repeats the same samples') as warned:
        last, fourth = dataset[-1], dataset[4]
    assert sum('every epoch' in str(warning.message) for warning in warned) == 1
    assert last['data_samples'].image_id == fourth['data_samples'].image_id == 1
    np.testing.assert_array_equal(last['inputs'], dataset[SampleIndex(4)]['inputs'])
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        DATASETS.build(mini.config(LOAD + PACK, test_mode=True))[0]


def test_concatenated_sets_find_their_own_pools(mini):
    both = ConcatDataset([mini.config(), mini.config(split='val')])
    assert len(both) == 6
    assert [len(d.pool) for d in both.datasets] == [4, 1]
