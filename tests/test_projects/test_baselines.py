"""Answers without language: counted by hand on the hand-made data set."""

import pytest
from baselines import category_baseline, shuffle_expressions

from nemo_mmseg.utils.fileio import load_plain_pickle


def test_the_best_answer_that_knows_the_category(mini):
    """Image 1 holds two boxes of 300 pixels apart, three expressions for one and one for the other.

    The union scores I/U = 300/600 on these four and 1 on the five others; the larger one (the first
    of equals) 1 on three and 0/600 on one; a random one 1/2 on four. So the second is best at both.
    """
    folder = mini.root / 'mini'
    scores = category_baseline(str(folder / 'refs(unc).p'), str(folder / 'instances.json'), 'train')
    assert scores['oIoU'] == pytest.approx(100 * 8 * 300 / (8 * 300 + 600))
    assert scores['mIoU'] == pytest.approx(100 * 8 / 9)


def test_shuffling_deals_the_same_expressions_to_other_references(mini):
    source, target = mini.root / 'mini' / 'refs(unc).p', mini.root / 'new' / 'refs(unc).p'
    shuffle_expressions(str(source), str(target), seed=1)
    before, after = load_plain_pickle(str(source)), load_plain_pickle(str(target))
    assert before[-1] == after[-1]  # val

    def texts(refs):
        return [[s['sent'] for s in ref['sentences']] for ref in refs if ref['split'] == 'train']

    assert texts(before) != texts(after) and sorted(texts(before)) == sorted(texts(after))
    assert [r['ann_id'] for r in before] == [r['ann_id'] for r in after]
    assert all(r['sent_ids'] == [s['sent_id'] for s in r['sentences']] for r in after)
    shuffle_expressions(str(source), str(mini.root / 'again' / 'refs(unc).p'), seed=1)
    assert (mini.root / 'again' / 'refs(unc).p').read_bytes() == target.read_bytes()
