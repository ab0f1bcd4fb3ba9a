"""Every expression of RefShapes describes its targets alone: proved from its text and the scene."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from refshapes_clip.words import all_words
from refshapes_truth.group_truth import targets_of
from refshapes_truth.scenes import thing
from refshapes_truth.truth import true_of

from nemo_mmseg.refshapes import SPLITS, VARIANTS, make_sample
from nemo_mmseg.utils.clip import load_clip_tokenizer

CONFIG = (
    Path(__file__).resolve().parents[2]
    / 'configs/refshapes/cris_refshapes-clip_1xb16-4e_grefshapes-256x256.py'
)

SCENE = [
    thing('star', 'red', at=(40, 100)),
    thing('star', 'red', 'dotted', 'white', 1700, at=(260, 60)),
    thing('ring', 'blue', 'striped', 'white', at=(150, 200), covers={'3': 0.1}),
    thing('square', 'green', at=(170, 190)),
    thing('square', 'green', 'outlined', 'red', 1699, at=(150, 40)),
]
# Objects of the generous reader, and of the strict one.
OF_ONE_TARGET = {
    'the red star': ([0, 1], [0, 1]),
    'plain red star': ([0], [0]),
    'star with white dots': ([1], [1]),
    'the large red star': ([1], [1]),
    'the larger star': ([1], [1]),
    'the bigger red star': ([1], [1]),
    'the smaller star': ([0], [0]),
    'little red star': ([0], [0]),
    'the biggest star': ([1], []),  # of two, some would not say so
    'the larger star with white dots': ([1], []),  # larger than which?
    'the larger square': ([3, 4], []),  # 1.699 times as large
    'large square': ([4], []),
    'the larger red object': ([1, 4], []),
    'the larger object': ([1, 4], []),
    'the ring below the larger star': ([2], [2]),
    'the larger star on the right': ([1], []),  # of those on the right there is one
    'the smaller star left of the blue ring': ([0], []),
    'white star': ([1], []),  # somebody might say so of its dots
    'white striped ring': ([2], [2]),
    'blue and white striped donut': ([2], [2]),
    'ring with red and white stripes': ([], []),
    'the left star': ([0], [0]),
    'star on the left': ([0], [0]),
    'the right star': ([1], [1]),
    'top right star': ([1], [1]),
    'star in the bottom left corner': ([], []),
    'the leftmost square': ([4], [4]),
    'lowest square': ([3], [3]),
    'second square from the top': ([3], [3]),
    'second star from the right': ([0], [0]),
    'third star from the right': ([], []),
    'the square above the blue ring': ([3, 4], [4]),
    'the ring below the two red stars': ([2], [2]),
    'the ring below the two squares': ([2], []),
    'a ring that is in front of the plain green square': ([2], [2]),
    'the square partly hidden by the striped ring': ([3], [3]),
    'the square nearest to the striped ring': ([3], [3]),
    'the square between the plain red star and the dotted red star': ([4], [4]),
    'the object left of the blue ring': ([0, 4], [0]),
    'green square with a red outline': ([4], [4]),
    'red square': ([4], []),
}
GROUP_SCENE = [
    thing('star', 'red', at=(40, 100)),
    thing('star', 'red', 'dotted', 'white', 4000, at=(260, 60)),
    thing('ring', 'blue', 'striped', 'white', at=(150, 200)),
    thing('square', 'green', area=500, at=(170, 190)),
    thing('star', 'blue', 'outlined', 'red', 2000, at=(60, 40)),
    thing('cross', 'green', at=(300, 200)),
]
OF_ANY_TARGETS = {
    'all stars': ([0, 1, 4], [0, 1, 4]),
    'the three stars': ([0, 1, 4], [0, 1, 4]),
    'stars': ([0, 1, 4], [0, 1, 4]),
    # Two presuppositions that fail: nobody knows which are meant, so nothing is proved.
    'the two stars': ([0, 1, 4], []),
    'both rings': ([2], []),
    # An outline is red, too: one reader counts it.
    'the two red stars': ([0, 1, 4], [0, 1]),
    'all large stars': ([1, 4], [1, 4]),
    'the two large stars': ([1, 4], [1, 4]),
    'both small stars': ([0, 4], [0, 4]),  # two have a larger one beside them
    'all small red objects': ([0, 4], []),
    'large stars on the left': ([4], []),
    'the biggest star': ([1], [1]),
    'the largest object': ([1], [1]),
    'the smallest thing': ([3], [3]),
    'the larger star': ([1], []),  # of three
    'the smallest star': ([0], [0]),
    'all stars except the biggest star': ([0, 4], [0, 4]),
    'the biggest star and the ring': ([1, 2], [1, 2]),
    'both stars on the left': ([0, 4], [0, 4]),
    'stars on the right': ([1], []),
    'all the stars at the top': ([0, 1, 4], [0, 1, 4]),
    'left stars': ([0, 4], [0, 4]),
    'green objects': ([3, 5], [3, 5]),
    'the two green things at the bottom': ([3, 5], [3, 5]),
    'the green cross': ([5], [5]),  # "cross" is no plural
    'all crosses': ([5], []),
    'the blue ring and the green square': ([2, 3], [2, 3]),
    'the blue and white striped ring and the green cross': ([2, 5], [2, 5]),
    'the ring and the star': ([0, 1, 2, 4], []),
    'all stars except the star with white dots': ([0, 4], [0, 4]),
    'all stars except the square': ([0, 1, 4], []),
    'the yellow star': ([], []),
    'all yellow stars': ([], []),
    'the hearts': ([], []),
    'the leftmost star': ([0], [0]),
    'the ring below the star with white dots': ([2], [2]),
    'lowest object': ([2, 5], []),
}


@pytest.mark.parametrize('read', [true_of, targets_of])
def test_readers_of_one_target_by_hand(read):
    for text, (generous, strict) in OF_ONE_TARGET.items():
        assert read(text, SCENE, 320, 240) == generous, text
        assert read(text, SCENE, 320, 240, 'strict') == strict, text


def test_readers_of_any_number_of_targets_by_hand():
    for text, expected in OF_ANY_TARGETS.items():
        found = [targets_of(text, GROUP_SCENE, 320, 240, who) for who in ('generous', 'strict')]
        assert found == list(expected), text


@pytest.mark.parametrize('text', ['the green cat', 'left', 'star square', 'very red star'])
def test_readers_refuse_what_they_do_not_know(text):
    with pytest.raises(ValueError):
        true_of(text, SCENE, 320, 240)


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('variant', VARIANTS)
def test_expressions_describe_their_targets_and_no_other(variant, split):
    """Proved for images of the default data. They hold no words that the small CLIP lacks."""
    kinds, sizes, words = Counter(), Counter(), set(all_words())
    for index in range(30):
        sample = make_sample(0, variant, split, index)
        scene = sample.scene
        objects = [
            dict(o.to_dict(), area=int(mask.sum())) for o, mask in zip(scene.objects, scene.masks)
        ]
        for targets, expressions in sample.references:
            assert len({text for text, _ in expressions}) == len(expressions) > 0
            sizes[min(len(targets), 2)] += len(expressions)
            for text, meaning in expressions:
                kinds[meaning['kind']] += 1
                for reader in ('generous', 'strict'):
                    found = targets_of(text, objects, scene.width, scene.height, reader)
                    assert found == list(targets), text
                if variant != 'grefshapes':
                    assert set(re.findall('[a-z]+', text)) <= words, text
        if variant == 'grefshapes':
            assert {min(len(t), 2) for t, _ in sample.references} == {0, 1, 2}, 'each kind an image'
        else:
            assert all(len(e) == 3 and len(t) == 1 for t, e in sample.references)
    if variant == 'grefshapes':
        assert {'group', 'side', 'pair', 'nothing', 'appearance'} <= set(kinds)
        # As in gRefCOCO: most have one target, then several, then none.
        shares = [sizes[number] / sizes.total() for number in range(3)]
        assert 0.08 < shares[0] < 0.22 and 0.45 < shares[1] < 0.65 and 0.22 < shares[2] < 0.42


def test_a_no_target_expression_nearly_has_a_target():
    """One attribute is changed: without it the expression fits an object of the scene."""
    for index in range(20):
        sample = make_sample(8, 'grefshapes', 'train', index)
        looks = [o.to_dict() for o in sample.scene.objects]
        no_target = next(expressions for targets, expressions in sample.references if not targets)
        for _, meaning in no_target:
            said = {k: value for k, value in meaning['what'].items() if value and k != 'size'}
            misses = [
                sum(
                    value not in (look['colour'], look['second'])
                    if key in ('colour', 'second')
                    else value != look[key]
                    for key, value in said.items()
                )
                for look in looks
            ]
            assert min(misses) == 1, meaning


def test_the_demo_reads_generalized_expressions_to_their_end():
    """The exception of "all rings except the ..." comes last."""
    encoder = Config.fromfile(CONFIG).model.text_encoder
    samples = [make_sample(0, 'grefshapes', 'train', index) for index in range(40)]
    said = [one for s in samples for _, expressions in s.references for one in expressions]
    assert any(meaning['kind'] == 'except' for _, meaning in said)
    tokens = load_clip_tokenizer(encoder.model)([text for text, _ in said], context_length=77)
    assert (tokens != 0).sum(1).max() <= encoder.context_length


SIZE_WORDS = set('small little large big smaller larger bigger smallest largest biggest'.split())


def test_sizes_are_said_only_where_they_differ():
    """By the masks: the target, or each target, is 1.7 times larger or smaller than another."""
    heard = Counter()
    for variant in VARIANTS:
        for index in range(50):
            sample = make_sample(1, variant, 'train', index)
            areas = [int(mask.sum()) for mask in sample.scene.masks]
            for targets, expressions in sample.references:
                for text, meaning in expressions:
                    words = SIZE_WORDS & set(text.split())
                    heard.update(words)
                    if not words or meaning['kind'] not in ('appearance', 'group'):
                        continue
                    (word,) = words
                    ratios = [[areas[t] / area for area in areas] for t in targets]
                    large = word[:3] in ('lar', 'big')
                    assert all(max(r) >= 1.7 if large else min(r) <= 1 / 1.7 for r in ratios), text
    assert set(heard) == SIZE_WORDS


def test_a_size_in_pixels_does_not_tell_the_word():
    """Of a large and a small object from two images, the small one is now and then the larger."""
    small, large = [], []
    for index in range(100):
        sample = make_sample(2, 'refshapes+', 'train', index)
        for (target,), expressions in sample.references:
            scene = sample.scene
            share = scene.objects[target].area / scene.width / scene.height
            for text, _ in expressions:
                words = SIZE_WORDS & set(text.split())
                if words:
                    (large if words.pop()[:3] in ('lar', 'big') else small).append(share)
    assert min(len(small), len(large)) > 20
    assert 0.04 < np.mean(np.array(large)[:, None] < np.array(small)) < 0.25


def test_variants_differ_as_the_real_sets_do():
    places = {'left', 'right', 'top', 'bottom', 'middle', 'center', 'leftmost', 'rightmost'}
    places |= {'topmost', 'highest', 'lowest'}
    share, length = {}, {}
    for variant in ('refshapes', 'refshapes+', 'refshapesg'):
        said = [
            text.split()
            for index in range(40)
            for _, expressions in make_sample(22, variant, 'val', index).references
            for text, _ in expressions
        ]
        share[variant] = np.mean([bool(places & set(words)) for words in said])
        length[variant] = np.mean([len(words) for words in said])
    assert share['refshapes'] > 0.5
    assert share['refshapes+'] == 0
    assert length['refshapesg'] > 1.6 * max(length['refshapes'], length['refshapes+'])


def test_an_appearance_is_rarely_true_elsewhere():
    """What NeMo's negatives need: few expressions that hold in another image by accident."""
    samples = [make_sample(23, 'refshapes+', 'train', i) for i in range(60)]
    hits = []
    for i, one in enumerate(samples):
        texts = [text for _, expressions in one.references for text, _ in expressions]
        for step in (1, 2, 3):
            scene = samples[(i + step) % len(samples)].scene
            objects = [o.to_dict() for o in scene.objects]
            hits += [bool(true_of(text, objects, scene.width, scene.height)) for text in texts]
    assert np.mean(hits) <= 0.025
