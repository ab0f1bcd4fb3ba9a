"""Expressions that are replaced by ones that are false of the image."""

import numpy as np
import pytest
from mmseg.registry import DATASETS, TRANSFORMS
from nemo_helpers import mosaic_config, write_bank
from torch.utils.data import DataLoader

from nemo_mmseg.datasets.samplers import ReferringSampler, SampleIndex
from nemo_mmseg.datasets.transforms.negative_expressions import string_similarity
from nemo_mmseg.mining.bank_writer import ExpressionBankWriter

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
PACK = dict(type='PackReferringInputs')


@pytest.mark.parametrize(
    'one, other, expected',
    [
        # By textdistance 4.6: the mean of jaccard and cosine.
        ('red star', 'blue star', 0.6262806633205464),
        ('man', 'woman', 0.6872983346207417),
        ('aab', 'abb', 0.5833333333333333),
        ('left', 'right cup', 0.125),
        ('the man in red', 'woman with a dog', 0.5840765523905305),
        ('a', 'a', 1),
        ('ab', 'cd', 0),
    ],
)
def test_the_string_filter_compares_characters(one, other, expected):
    assert string_similarity(one, other) == pytest.approx(expected, abs=1e-12)


def replaced(dataset, epochs=60, seed=0):
    """All new expressions by the old one, and the samples that stayed."""
    found, stayed = {}, []
    for index in range(len(dataset)):
        for epoch in range(epochs):
            sample = dataset[SampleIndex(index, epoch, seed)]['data_samples']
            record = sample.metainfo.get('replaced')
            if record is None:
                stayed.append(sample)
                continue
            assert sample.num_targets == [0] and not sample.gt_sem_seg.data.any()
            assert sample.num_distractors == [-1]
            news = found.setdefault(record['expression'], set())
            news.add((sample.expressions[0], sample.sent_ids[0]))
    return found, stayed


def build(mini, prob=1.0, before=(), after=LOAD, dataset=(), **options):
    replace = dict(type='ReplaceByNegativeExpression', prob=prob, **options)
    pipeline = [dict(type='SampleExpressions'), *before, replace, *after, PACK]
    return DATASETS.build(mini.config(pipeline, **dict(dataset)))


def test_random_ones_are_of_other_images_and_pass_the_filter(mini):
    mini.refs[3]['sentences'][1]['sent'] = 'Left  BOX'  # also true of image 1
    mini.write()
    found, stayed = replaced(build(mini, max_similarity=1.0), epochs=300)
    everything = {
        (one['sent'], one['sent_id'], ref['image_id'])
        for ref in mini.refs
        for one in ref['sentences']
        if ref['split'] == 'train'
    }
    own = {text: image for text, _, image in everything}
    said = {
        image: {' '.join(t.lower().split()) for t, _, i in everything if i == image}
        for image in own.values()
    }
    for old, news in found.items():
        image = own[old]
        assert news == {
            (text, sent_id)
            for text, sent_id, of in everything
            if of != image and ' '.join(text.lower().split()) not in said[image]
        }
    assert set(found) == set(own) and not stayed
    # With DeRIS's filter 'green box' is never replaced by 'the other box' and the like.
    found, stayed = replaced(build(mini))
    for old, news in found.items():
        for text, _ in news:
            assert string_similarity(' '.join(text.lower().split()), old.lower().strip()) < 0.6
    # Nothing differs enough: the samples stay, with their targets.
    found, stayed = replaced(build(mini, max_similarity=0.0), epochs=2)
    assert not found and all(one.num_targets == [1] for one in stayed)


def test_the_share_and_what_has_no_target(gref_mini):
    dataset = build(gref_mini, prob=0.25, max_similarity=1.0, dataset=dict(group_by='expression'))
    found, stayed = replaced(dataset, epochs=300)
    assert 'the round thing' not in found  # it had no target before
    number = len(dataset) * 300 - len(stayed)
    assert number / (4 * 300) == pytest.approx(0.25, abs=0.05)  # 4 of 5 have targets
    assert all(one.num_targets[0] for one in stayed if one.expressions != ['the round thing'])


def expression_bank(dataset, path, texts, sent_ids, rankings, similarities, own):
    every, _, rows = dataset.expressions()
    made = dict(fingerprint=dataset.fingerprint, dataset='mini', split='train', kind='expressions')
    with ExpressionBankWriter(
        path, every, rows, own, texts, sent_ids, len(dataset.pool), len(rankings[0]), made
    ) as writer:
        writer.write(np.arange(len(rankings)), np.array(rankings), np.array(similarities))


@pytest.fixture
def with_bank(mini, tmp_path):
    """Images 1 to 4; image 2's band is empty below tau = 0.5 * 0.8."""
    path = tmp_path / 'bank.safetensors'
    plain = DATASETS.build(mini.config([]))
    texts, ids = ['left box', 'green box', 'right box', 'blue box'], [10, 20, 30, 40]
    rankings = [[2, 3, 1], [0, 2, 3], [1, 0, 3], [0, 1, 2]]
    similarities = [[0.5, 0.39, 0.2], [0.9, 0.8, 0.7], [0.3, 0.2, 0.1], [0.4, 0.3, 0.2]]
    own = np.full(len(plain.expressions()[0]), 0.8)
    expression_bank(plain, path, texts, ids, rankings, similarities, own)
    return dict(bank=dict(path=str(path)), band=dict(tau=0.5, top_k=2))


def test_mined_ones_are_of_the_band(mini, with_bank):
    found, _ = replaced(build(mini, max_similarity=1.0, **with_bank))
    assert found['box'] == found['the other box'] == {('blue box', 40), ('green box', 20)}
    assert found['right box'] == {('green box', 20), ('left box', 10)}
    assert found['cyan box'] == {('left box', 10), ('green box', 20)}
    # The band of image 2 is empty: random ones take its place, all of other images.
    assert len(found['green box']) == 8


@pytest.mark.parametrize('mined', [False, True])
def test_workers_change_nothing(mini, with_bank, mined):
    dataset = build(mini, prob=0.5, max_similarity=1.0, **(with_bank if mined else {}))

    def epoch_of(workers):
        sampler = ReferringSampler(dataset, shuffle=True, seed=3)
        sampler.set_epoch(2)  # as after a resume
        loader = DataLoader(dataset, 2, sampler=sampler, num_workers=workers, collate_fn=list)
        samples = [one['data_samples'] for batch in loader for one in batch]
        return [(one.expressions, one.sent_ids, one.num_targets) for one in samples]

    assert epoch_of(0) == epoch_of(2)


@pytest.mark.parametrize(
    'kind, options',
    [
        ('mined', dict(mined=1.0, top_k=3)),
        ('filled', dict(mined=1.0, top_k=3, tau=0.2)),
        ('random', dict(mined=0.0, random=1.0, top_k=3)),
    ],
)
def test_a_mosaic_behind_it_takes_the_negatives_of_the_new_expression(
    mini, with_bank, tmp_path, kind, options
):
    path = tmp_path / 'images.safetensors'
    plain = DATASETS.build(mini.config([]))
    write_bank(plain, path, [0.1, 0.3, 0.4, 0.2], np.full(len(plain.expressions()[0]), 0.8))
    mosaic = mosaic_config(
        cells=(1, 3), bank=dict(path=str(path), keep=3), transforms=LOAD, **options
    )
    replacing = dict(with_bank, band=dict(tau=0.5, top_k=1))
    dataset = build(mini, after=[mosaic], **replacing)
    for epoch in range(40):
        sample = dataset[SampleIndex(2, epoch)]['data_samples']  # image 3
        assert sample.expressions == ['green box'] and not sample.gt_sem_seg.data.any()
        assert sample.mosaic['kind'] == kind.replace('filled', 'mined')
        assert sample.mosaic['num_filled'] == (kind == 'filled')
        # "green box" is said of image 2, and image 3 is the sample's: neither is in another cell.
        assert set(sample.mosaic['names']) == {'image_1.jpg', 'image_4.jpg'}


@pytest.mark.parametrize('mined', [False, True])
def test_paraphrases_of_the_image_are_not_false_of_it(mini, with_bank, tmp_path, mined):
    file = tmp_path / 'said.json'
    file.write_text('{"30": ["Green  box"], "31": ["green box", "left box"]}')
    replace = dict(type='ReplaceByNegativeExpression', prob=1.0, max_similarity=1.0)
    replace.update(with_bank if mined else {})
    sample = dict(type='SampleExpressions', paraphrases=str(file))
    dataset = DATASETS.build(mini.config([sample, replace, *LOAD, PACK]))
    for epoch in range(100):
        sample = dataset[SampleIndex(2, epoch)]['data_samples']  # image 3
        assert sample.num_targets == [0]
        assert sample.expressions[0].lower() not in ('green box', 'left box', 'right box')


def test_what_makes_no_sense_is_refused(mini):
    def make(**options):
        return TRANSFORMS.build(dict(type='ReplaceByNegativeExpression', **options))

    with pytest.raises(ValueError, match='prob=1.5 and max_similarity=0.6 must be in'):
        make(prob=1.5)
    with pytest.raises(ValueError, match='a band needs bank=dict'):
        make(band=dict(tau=0.9))
    with pytest.raises(ValueError, match='i2i_sim_thres compares images'):
        make(bank=dict(path='bank'), band=dict(i2i_sim_thres=0.9))
    with pytest.raises(ValueError, match='stands before what loads the mask'):
        build(mini, before=LOAD, after=[])[0]
