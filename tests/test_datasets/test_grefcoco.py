"""Several targets or none: what GRefCOCODataset reads, and what it says of bad files."""

import pickle
import warnings

import numpy as np
import pytest
from check_data import check_data, format_reports
from mmengine.config import Config
from mmseg.registry import DATASETS, TRANSFORMS

from nemo_mmseg.datasets.fingerprint import PUBLISHED_SPLITS, SplitCounts
from nemo_mmseg.visualization import browse

PIPELINE = [
    dict(type='LoadReferringImage'),
    dict(type='LoadReferentMask'),
    dict(type='PackReferringInputs'),
]


def build(mini, pipeline=(), **kwargs):
    return DATASETS.build(mini.write().config(pipeline, **kwargs))


def test_masks_are_the_union_of_the_targets(gref_mini):
    dataset = build(gref_mini, PIPELINE, group_by='image')
    assert len(dataset) == 2
    item = dataset.get_data_info(0)
    assert item['targets'] == [[0], [1, 0], [1, 0], []]
    assert [one['ann_id'] for one in item['instances']] == [101, 201], 'each annotation once'
    sample = dataset[0]['data_samples']
    masks = sample.gt_sem_seg.data.numpy()
    one, other = gref_mini.masks[101], gref_mini.masks[201]
    assert masks.shape == (4, 48, 64)
    for mask, expected in zip(masks, (one, one | other, one | other, 0 * one)):
        # pycocotools draws the polygon, the fixture the same rectangle
        assert np.array_equal(mask, expected)
    assert sample.num_targets == [1, 2, 2, 0]
    assert sample.num_distractors == [1, 0, 0, -1]
    assert sample.expressions == ['left box', 'both boxes', 'all boxes', 'the round thing']
    assert sample.dataset_name == 'mini'


def test_items_by_reference_and_expression(gref_mini):
    assert len(build(gref_mini, group_by='reference')) == 4
    by_expression = build(gref_mini, group_by='expression')
    found = [by_expression.get_data_info(i) for i in range(len(by_expression))]
    assert [len(item['targets'][0]) for item in found] == [1, 2, 2, 0, 1]
    no_target = build(gref_mini, PIPELINE, split='val')[0]['data_samples']
    assert no_target.num_targets == [0, 0] and not no_target.gt_sem_seg.data.any()


def test_drawing_an_expression_keeps_the_number_of_its_targets(gref_mini):
    draw = TRANSFORMS.build(dict(type='SampleExpressions', num=1))
    info = build(gref_mini, group_by='image').get_data_info(0)
    drawn = [draw(dict(info, rng=np.random.default_rng(seed))) for seed in range(30)]
    counts = {one['expressions'][0]: one['num_targets'] for one in drawn}
    assert counts == {
        'left box': [1],
        'both boxes': [2],
        'all boxes': [2],
        'the round thing': [0],
    }


def test_the_expressions_of_a_bank_include_no_target_expressions(gref_mini):
    sent_ids, texts, rows = build(gref_mini).expressions()
    assert sent_ids.tolist() == [10, 20, 21, 30, 40]
    assert texts[3] == 'the round thing' and rows.tolist() == [0, 0, 0, 0, 1]


def test_a_crowd_is_no_target_beside_others(gref_mini):
    gref_mini.instances['annotations'][-1]['iscrowd'] = 1  # 201
    gref_mini.refs.append(dict(gref_mini.refs[0], ann_id=[201]))
    dataset = build(gref_mini, group_by='expression')
    found = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [[i['ann_id'] for i in item['instances']] for item in found] == [
        [101],
        [101],
        [101],
        [],
        [102],
        [201],
    ]
    assert [item['num_distractors'][0] for item in found] == [0, 0, 0, -1, 0, 1]


def test_a_single_number_and_a_pickle_are_read_too(gref_mini):
    gref_mini.refs[0]['ann_id'] = 101
    (gref_mini.root / 'mini' / 'grefs(unc).p').write_bytes(pickle.dumps(gref_mini.refs))
    one = build(gref_mini)
    two = build(gref_mini, split_file='mini/grefs(unc).p')
    assert [one.get_data_info(i)['targets'] for i in range(4)] == [[[0]], [[0, 1]] * 2, [[]], [[0]]]
    assert one.fingerprint == two.fingerprint


def broken(mini, change):
    """The message about a data set with one change in a reference."""
    mini.refs[1].update(change)
    with pytest.raises(ValueError) as error:
        build(mini)
    assert 'grefs(unc).json' in str(error.value)
    return str(error.value)


def test_what_is_wrong_is_named(gref_mini):
    assert 'reference 2: ann_id is 999' in broken(gref_mini, dict(ann_id=[101, 999]))
    assert '2, the image of annotation 102' in broken(gref_mini, dict(ann_id=[101, 102]))
    assert 'only [-1] stands for no target' in broken(gref_mini, dict(ann_id=[101, -1]))
    assert 'only [-1] stands for no target' in broken(gref_mini, dict(ann_id=[]))
    assert 'reference 2: image_id is 77' in broken(gref_mini, dict(ann_id=[-1], image_id=77))
    gref_mini.refs[1].pop('ann_id')
    assert 'reference 2: ann_id is missing' in broken(gref_mini, {})


def test_other_errors_are_those_of_refcoco(gref_mini):
    with pytest.raises(ValueError, match="no split 'test'; it has: train, val"):
        build(gref_mini, split='test')
    gref_mini.refs[2]['sentences'][0]['sent'] = ' '
    with pytest.raises(ValueError, match="reference 3: expression 30: sent is the text ' '"):
        build(gref_mini)
    gref_mini.refs.pop(2)
    gref_mini.instances['annotations'][0]['segmentation'] = []
    with pytest.raises(ValueError, match=r'annotation 101: segmentation is \[\]; allowed: not an'):
        build(gref_mini)
    path = gref_mini.root / 'mini' / 'grefs(unc).json'
    path.write_text(path.read_text()[:-10])
    with pytest.raises(ValueError, match='grefs.*not valid JSON'):
        DATASETS.build(gref_mini.config(type='GRefCOCODataset', split_file='mini/grefs(unc).json'))


def test_a_target_that_is_named_twice_counts_once(gref_mini):
    gref_mini.refs[1]['ann_id'] = [201, 101, 201]
    assert build(gref_mini).get_data_info(1)['num_targets'] == [2, 2]


def test_two_entries_of_one_id_must_be_the_same(gref_mini):
    annotations = gref_mini.instances['annotations']
    annotations.append(dict(annotations[0]))
    assert build(gref_mini).get_data_info(0)['num_distractors'] == [1], 'counted once'
    annotations[-1]['category_id'] = 7
    with pytest.raises(ValueError, match='annotation 101: id is 101; .* two different'):
        build(gref_mini)


def test_an_annotation_that_covers_no_pixel_is_an_error(gref_mini):
    # Only [-1] makes an empty mask.
    gref_mini.instances['annotations'][0]['segmentation'] = [[5, 5, 5.1, 5, 5.1, 5.1, 5, 5.1]]
    with pytest.raises(ValueError, match='annotation 101 of .*image_1.jpg: its mask is empty'):
        build(gref_mini, PIPELINE, group_by='image')[0]


def test_refcoco_refuses_it_and_says_who_reads_it(gref_mini):
    with pytest.raises(ValueError, match=r'reference 1: ann_id is \[101\]; .*GRefCOCODataset'):
        build(gref_mini, type='RefCOCODataset')


def test_published_counts(gref_mini, monkeypatch):
    published = PUBLISHED_SPLITS['grefcoco/grefs(unc)']
    assert sum(counts.expressions for counts in published.values()) == 259_859
    (gref_mini.root / 'mini').rename(gref_mini.root / 'other')
    gref_mini.write()
    (gref_mini.root / 'mini').rename(gref_mini.root / 'grefcoco')
    config = gref_mini.config(
        ann_file='grefcoco/instances.json',
        split_file='grefcoco/grefs(unc).json',
    )
    with pytest.warns(UserWarning, match='5 expressions, .* but 209344 expressions were published'):
        DATASETS.build(config)
    monkeypatch.setitem(published, 'train', SplitCounts(None, 5))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        DATASETS.build(config)


def test_check_data_counts_multi_target_and_no_target_expressions(gref_mini):
    def report():
        loader = dict(dataset=gref_mini.write().config())
        return check_data(Config(dict(train_dataloader=loader)), progress=False)[0]

    sound = report()
    assert sound.errors == []
    assert sound.counts == dict(
        references=4, expressions=5, images=2, objects=3, multi_target=2, no_target=1
    )
    assert 'no_target' in format_reports([sound])
    gref_mini.refs[1]['ann_id'] = [101, 999]
    gref_mini.instances['annotations'][1]['segmentation'] = [[5, 5, 5.1, 5, 5.1, 5.1, 5, 5.1]]
    errors = report().errors
    assert len(errors) == 2
    assert 'reference 2: ann_id is 999' in errors[0]
    assert 'annotation 102: the mask is empty' in errors[1]


def test_sheets_of_samples_say_how_many_targets_there_are(gref_mini, monkeypatch):
    said = []
    monkeypatch.setattr(browse, 'add_caption', lambda image, text, **_: said.append(text) or image)
    drawn = browse.draw_training_sample(build(gref_mini, PIPELINE, group_by='image')[0])
    assert drawn.shape[0] == 48
    assert said == [
        'left box',
        'both boxes [2 targets]',
        'all boxes [2 targets]',
        'the round thing [no targets]',
    ]
