"""Drawing expressions of an item, and of the other items of its image."""

import json
from collections import Counter

import numpy as np
import pytest
from mmseg.registry import DATASETS, TRANSFORMS

from nemo_mmseg.datasets.samplers import SampleIndex


def test_sample_expressions_draws_uniformly_and_keeps_entries_together():
    counts = np.zeros(4)
    transform = TRANSFORMS.build(dict(type='SampleExpressions', num=2))
    rng = np.random.default_rng(0)
    for _ in range(2000):
        results = transform(
            dict(
                rng=rng,
                expressions=list('abcd'),
                sent_ids=[0, 1, 2, 3],
                ref_ids=[10, 11, 12, 13],
                targets=[[0], [1], [2], [3]],
                num_distractors=[4, 5, 6, 7],
            )
        )
        kept = results['sent_ids']
        assert len(set(kept)) == 2
        assert results['expressions'] == ['abcd'[i] for i in kept]
        assert results['targets'] == [[i] for i in kept]
        assert results['ref_ids'] == [10 + i for i in kept]
        counts[kept] += 1
    assert abs(counts / 2000 - 0.5).max() < 0.05
    with pytest.raises(ValueError, match='num=0 must be at least 1'):
        TRANSFORMS.build(dict(type='SampleExpressions', num=0))


def negatives_of(mini, num=1, epochs=25, **kwargs):
    """The negatives that are drawn for each reference in some epochs."""
    pipeline = [
        dict(type='SampleExpressions'),
        dict(type='SampleNegativeExpressions', num=num),
        dict(type='LoadReferringImage'),
        dict(type='PackReferringInputs', extra_keys=['negative_expressions']),
    ]
    dataset = DATASETS.build(mini.config(pipeline, **kwargs))
    found = {}
    for index in range(len(dataset)):
        for epoch in range(epochs):
            sample = dataset[SampleIndex(index, epoch)]['data_samples']
            assert len(sample.expressions) == len(sample.negative_expressions) == 1
            found.setdefault(sample.ref_ids[0], []).append(sample.negative_expressions[0])
    return found


def texts_of(mini, *ref_ids):
    refs = [ref for ref in mini.refs if ref['ref_id'] in ref_ids]
    return {one['sent'] for ref in refs for one in ref['sentences']}


@pytest.mark.parametrize('group_by', ['reference', 'expression'])
def test_negatives_are_of_the_image_or_else_of_the_data_set(mini, group_by):
    # Image 1 has the references 1 and 5, the other images have one each.
    found = negatives_of(mini, group_by=group_by, epochs=60)
    seen = {ref_id: {said for one in drawn for said in one} for ref_id, drawn in found.items()}
    assert seen[1] == texts_of(mini, 5) and seen[5] == texts_of(mini, 1)
    everything = texts_of(mini, 1, 2, 3, 4, 5)
    for ref_id in (2, 3, 4):
        assert seen[ref_id] == everything - texts_of(mini, ref_id)


def test_negatives_are_as_many_as_asked_for_and_the_same_every_time(mini):
    found = negatives_of(mini, num=4, epochs=5)
    assert {len(one) for drawn in found.values() for one in drawn} == {4}
    assert negatives_of(mini, num=4, epochs=5) == found
    # of four different items where the image has no other
    assert all(len(set(one)) == 4 for one in found[2])


def item(ref_id, expressions, *ann_ids):
    """An item of one reference."""
    return dict(
        ref_ids=[ref_id] * len(expressions),
        expressions=expressions,
        targets=[list(range(len(ann_ids)))] * len(expressions),
        instances=[dict(ann_id=ann_id) for ann_id in ann_ids],
    )


def test_an_object_is_drawn_before_its_expression():
    items = [
        item(1, ['own'], 10),
        item(2, [f'two {i}' for i in range(9)], 20),
        item(3, ['three'], 30),
        item(4, ['Own '], 40),  # equal: no negative
        item(5, ['own, in other words'], 10, 50),  # the same object: none, either
    ]
    transform = TRANSFORMS.build(dict(type='SampleNegativeExpressions', num=2000))
    results = dict(items[0], items=items, siblings=[1, 2, 3, 4], rng=np.random.default_rng(0))
    (drawn,) = transform(results)['negative_expressions']
    assert drawn.count('three') / 2000 == pytest.approx(0.5, abs=0.05)
    assert set(drawn) == {'three', *items[1]['expressions']}


def test_no_other_reference_anywhere(mini):
    with pytest.raises(ValueError, match=r"image_2.*jpg: no negative for '.*' \(ref_id 2\): nei"):
        negatives_of(mini, indices=[1])
    with pytest.raises(ValueError, match='num=0 must be at least 1'):
        TRANSFORMS.build(dict(type='SampleNegativeExpressions', num=0))


def test_negatives_of_a_part_of_the_data_set_are_in_it(mini):
    found = negatives_of(mini, indices=[4, 1, 0], epochs=60)
    seen = {said for one in found[2] for said in one}
    assert seen == texts_of(mini, 1, 5)


def paraphrased(mini, content, **kwargs):
    """The data set with a file of paraphrases."""
    path = mini.root / 'paraphrases.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return DATASETS.build(
        mini.config([dict(type='SampleExpressions', paraphrases=str(path))], **kwargs)
    )


def test_paraphrases_are_drawn_as_often_as_the_expression(mini):
    dataset = paraphrased(mini, {'20': ['the lime box', 'a box in green']})
    drawn = [dataset[SampleIndex(1, epoch)] for epoch in range(600)]
    assert {one['sent_ids'][0] for one in drawn} == {20}
    said = Counter(one['expressions'][0] for one in drawn)
    assert set(said) == {'green box', 'the lime box', 'a box in green'}
    assert all(number / 600 == pytest.approx(1 / 3, abs=0.07) for number in said.values())
    again = [dataset[SampleIndex(1, epoch)]['expressions'] for epoch in range(50)]
    assert again == [one['expressions'] for one in drawn[:50]]
    # What has none is as without the file.
    plain = DATASETS.build(mini.config([dict(type='SampleExpressions')]))
    for epoch in range(9):
        index = SampleIndex(0, epoch)
        assert dataset[index]['expressions'] == plain[index]['expressions']


@pytest.mark.parametrize(
    'content, message',
    [
        ([1], 'the file is .1.; allowed: a dict'),
        ({'x': ['a']}, "a key is the text 'x'; allowed: a sentence id"),
        ({'-1': ['a']}, "a key is the text '-1'"),
        ({'20': 'green'}, "sentence 20: the value is the text 'green'; allowed: a list"),
        ({'20': ['a', ' ']}, "sentence 20: text 1 is the text ' '; allowed: a text .* not blank"),
        ({'20': [3]}, 'sentence 20: text 0 is 3'),
        ({'20': ['a'], '999': ['b']}, "a key is the text '999'; allowed: a sentence id of the"),
        ('{', 'paraphrases.json'),
    ],
)
def test_faulty_paraphrases_name_file_and_key(mini, content, message):
    with pytest.raises(ValueError, match=message) as error:
        paraphrased(mini, content)
    assert 'paraphrases.json' in str(error.value)
    if content == {'20': ['a'], '999': ['b']}:  # of a part, others are not known
        paraphrased(mini, content, indices=[1])
