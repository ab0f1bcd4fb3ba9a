"""Every expression of RefShapes is true of its target alone: proved from its text and the scene."""

import json
import pickle

import numpy as np
import pytest
from refshapes_truth.truth import true_of

from nemo_mmseg.refshapes.sample import make_sample
from nemo_mmseg.refshapes.vocabulary import SPLITS
from nemo_mmseg.refshapes.write import make_refshapes

FLAVOURS = ('refshapes', 'refshapes+', 'refshapesg')  # of one target an expression


def thing(
    category, colour='red', texture='plain', second=None, size='small', at=(0, 0), covers=None
):
    return dict(
        category=category,
        colour=colour,
        texture=texture,
        second=second,
        size=size,
        center=at,
        covers=covers or {},
    )


SCENE = [
    thing('star', 'red', at=(40, 100)),
    thing('star', 'red', 'dotted', 'white', 'large', at=(260, 60)),
    thing('ring', 'blue', 'striped', 'white', at=(150, 200), covers={'3': 0.1}),
    thing('square', 'green', at=(170, 190)),
    thing('square', 'green', 'outlined', 'red', 'large', at=(150, 40)),
]

HAND_MADE = {
    'the red star': ([0, 1], [0, 1]),
    'plain red star': ([0], [0]),
    'star with white dots': ([1], [1]),
    'the large red star with white dots': ([1], [1]),
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
    'the large square': ([4], [4]),
    'green square with a red outline': ([4], [4]),
    'red square': ([4], []),
}


@pytest.mark.parametrize('text', HAND_MADE)
def test_evaluator_by_hand(text):
    generous, strict = HAND_MADE[text]
    assert true_of(text, SCENE, 320, 240) == generous
    assert true_of(text, SCENE, 320, 240, 'strict') == strict


@pytest.mark.parametrize('text', ['the green cat', 'left', 'star square', 'very red star'])
def test_evaluator_refuses_what_it_cannot_read(text):
    with pytest.raises(ValueError):
        true_of(text, SCENE, 320, 240)


def prove(text, target, objects, width, height):
    assert true_of(text, objects, width, height, 'strict') == [target], text
    assert true_of(text, objects, width, height, 'generous') == [target], text


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('flavour', FLAVOURS)
def test_expressions_are_true_and_unique(flavour, split):
    for index in range(25):
        sample = make_sample(21, flavour, split, index)
        scene = sample.scene
        objects = [o.to_dict() for o in scene.objects]
        for target, said in sample.references:
            assert len({text for text, _ in said}) == 3
            for text, _ in said:
                prove(text, target, objects, scene.width, scene.height)


def test_flavours_differ_as_the_real_sets_do():
    places = {'left', 'right', 'top', 'bottom', 'middle', 'center', 'leftmost', 'rightmost'}
    places |= {'topmost', 'highest', 'lowest'}
    share, length = {}, {}
    for flavour in FLAVOURS:
        said = [
            text.split()
            for index in range(60)
            for _, texts in make_sample(22, flavour, 'val', index).references
            for text, _ in texts
        ]
        share[flavour] = np.mean([bool(places & set(words)) for words in said])
        length[flavour] = np.mean([len(words) for words in said])
    assert share['refshapes'] > 0.5
    assert share['refshapes+'] == 0
    assert length['refshapesg'] > 1.6 * max(length['refshapes'], length['refshapes+'])


def test_an_appearance_is_rarely_true_elsewhere():
    """What NeMo's negatives need: few expressions that hold in another image by accident."""
    samples = [make_sample(23, 'refshapes+', 'train', i) for i in range(60)]
    hits = trials = 0
    for i, one in enumerate(samples):
        texts = [text for _, said in one.references for text, _ in said]
        for step in (1, 2, 3):
            scene = samples[(i + step) % len(samples)].scene
            objects = [o.to_dict() for o in scene.objects]
            hits += sum(bool(true_of(t, objects, scene.width, scene.height)) for t in texts)
            trials += len(texts)
    assert hits / trials <= 0.015


@pytest.mark.slow
@pytest.mark.parametrize('flavour', FLAVOURS)
def test_every_expression_of_the_default_data(flavour, tmp_path):
    make_refshapes(tmp_path, flavour)
    with open(tmp_path / flavour / 'refs(unc).p', 'rb') as file:
        refs = pickle.load(file)
    scenes = json.loads((tmp_path / flavour / 'scenes.json').read_text())['scenes']
    for ref in refs:
        scene = scenes[str(ref['image_id'])]
        target = [o['ann_id'] for o in scene['objects']].index(ref['ann_id'])
        for sentence in ref['sentences']:
            prove(sentence['sent'], target, scene['objects'], scene['width'], scene['height'])
