"""Drawing expressions of an item, and of the other items of its image."""

import numpy as np
import pytest
from mmcv.transforms import BaseTransform
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


class OtherExpression(BaseTransform):
    """Draw an expression of another reference of the same image, as a training on text would."""

    def transform(self, results):
        others = [results['items'][index] for index in results['siblings']]
        drawn = [
            expression
            for other in others
            for expression, ref_id in zip(other['expressions'], other['ref_ids'])
            if ref_id not in results['ref_ids']
        ]
        results['negative_expressions'] = [str(results['rng'].choice(drawn))] if drawn else []
        return results


def drawn_by_reference(mini, **kwargs):
    """The expressions that are drawn for the references of a data set in some epochs."""
    pack = dict(type='PackReferringInputs', extra_keys=['negative_expressions'])
    dataset = DATASETS.build(
        mini.config([OtherExpression(), dict(type='LoadReferringImage'), pack], **kwargs)
    )
    found = {}
    for index in range(len(dataset)):
        for epoch in range(25):
            sample = dataset[SampleIndex(index, epoch)]['data_samples']
            found.setdefault(sample.ref_ids[0], set()).update(sample.negative_expressions)
    return found


@pytest.mark.parametrize('group_by', ['reference', 'expression'])
def test_expressions_of_siblings_can_be_drawn(mini, group_by):
    # Image 1 has the references 1 and 5, the other images have one each.
    first, fifth = {'left box', 'the box on top', 'box'}, {'the other box'}
    found = drawn_by_reference(mini, group_by=group_by)
    assert found == {1: fifth, 2: set(), 3: set(), 4: set(), 5: first}


def test_siblings_of_a_part_of_the_data_set_are_in_it(mini):
    assert drawn_by_reference(mini, indices=3) == {1: set(), 2: set(), 3: set()}
    assert drawn_by_reference(mini, indices=[4, 1, 0])[5] == {'left box', 'the box on top', 'box'}
