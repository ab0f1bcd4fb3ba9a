"""R-RefCOCO and Ref-ZOM: what is false of the image, or of no object, has an empty mask."""

import numpy as np
import pytest
from mini_refcoco import generalized_reference
from mmseg.registry import DATASETS

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.utils.faults import DataError

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
SAMPLE = [dict(type='SampleExpressions', num=1), *LOAD]


def robust(mini, pipeline=LOAD, **kwargs):
    mini.refs[0]['sentences'][0]['exist'] = True
    mini.refs[0]['sentences'][1]['exist'] = False  # the third has no such field, which is true
    mini.refs[1]['sentences'][0]['exist'] = 0
    mini.write()
    return DATASETS.build(mini.config(pipeline, type='RRefCOCODataset', **kwargs))


def test_false_expressions_of_r_refcoco_have_no_target(mini):
    dataset = robust(mini)
    assert len(dataset) == 5, 'a reference keeps its true and its false expressions'
    first, second = dataset[0], dataset[1]
    assert first['num_targets'] == [1, 0, 1] and second['num_targets'] == [0]
    assert first['num_distractors'][1] == -1
    masks = first['gt_seg_map'].transpose(2, 0, 1)
    np.testing.assert_array_equal(masks[0], mini.masks[101])
    np.testing.assert_array_equal(masks[2], mini.masks[101])
    assert not masks[1].any() and not second['gt_seg_map'].any()


def test_training_draws_true_and_false_expressions_with_their_masks(mini):
    dataset = robust(mini, SAMPLE)
    drawn = [dataset[SampleIndex(0, epoch=epoch)] for epoch in range(30)]
    kinds = {(one['num_targets'][0], bool(one['gt_seg_map'].any())) for one in drawn}
    assert kinds == {(1, True), (0, False)}


def test_exist_is_checked(mini):
    mini.refs[0]['sentences'][1]['exist'] = 'no'
    mini.write()
    with pytest.raises(DataError, match="reference 1: expression 11: exist is the text 'no'; allo"):
        DATASETS.build(mini.config(LOAD, type='RRefCOCODataset'))
    DATASETS.build(mini.config(LOAD))  # RefCOCODataset does not read it


def zom(mini):
    refs = [
        generalized_reference(1, [101], 1, ['left box']),
        generalized_reference(2, [201, 101], 1, ['both boxes']),
        generalized_reference(3, [102], 2, ['the round thing']),
        generalized_reference(4, [], 2, ['a dog']),
    ]
    for ref, source in zip(refs, ('one', 'many', 'zero', 'zero')):
        ref['source'] = source
    mini.refs = refs
    return mini


def build_zom(mini):
    mini.write()
    return DATASETS.build(mini.config(LOAD, type='RefZOMDataset', group_by='expression'))


def test_the_source_of_ref_zom_says_what_has_no_target(mini):
    dataset = build_zom(zom(mini))
    items = [dataset[index] for index in range(len(dataset))]
    assert [item['num_targets'] for item in items] == [[1], [2], [0], [0]]
    np.testing.assert_array_equal(items[1]['gt_seg_map'], mini.masks[101] | mini.masks[201])
    assert not items[2]['gt_seg_map'].any() and not items[3]['gt_seg_map'].any()


@pytest.mark.parametrize('source', [None, 7, 'missing'])
def test_a_reference_without_source_is_named(mini, source):
    zom(mini)
    if source == 'missing':
        del mini.refs[1]['source']
    else:
        mini.refs[1]['source'] = source
    with pytest.raises(DataError, match="reference 2: source is .*'zero' says that there is no"):
        build_zom(mini)


def test_a_reference_of_one_needs_its_annotation(mini):
    zom(mini).refs[3]['source'] = 'one'
    with pytest.raises(DataError, match=r'reference 4: ann_id is \[\]'):
        build_zom(mini)
