"""The generalised flavour of RefShapes: gRefCOCO's layout, and a proof of every expression."""

import json
from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from refshapes_truth.group_truth import targets_of
from refshapes_truth.truth import true_of

import nemo_mmseg  # noqa: F401  (registers)
from nemo_mmseg.refshapes.sample import make_sample
from nemo_mmseg.refshapes.vocabulary import SPLITS
from nemo_mmseg.refshapes.write import make_refshapes
from nemo_mmseg.utils.clip import load_clip_tokenizer

SIZES = {'train': 25, 'val': 8, 'testA': 4, 'testB': 4}


def thing(category, colour='red', texture='plain', second=None, size='small', at=(0, 0)):
    return dict(
        category=category,
        colour=colour,
        texture=texture,
        second=second,
        size=size,
        center=at,
        covers={},
    )


SCENE = [
    thing('star', 'red', at=(40, 100)),
    thing('star', 'red', 'dotted', 'white', 'large', at=(260, 60)),
    thing('ring', 'blue', 'striped', 'white', at=(150, 200)),
    thing('square', 'green', at=(170, 190)),
    thing('star', 'blue', 'outlined', 'red', 'large', at=(60, 40)),
    thing('cross', 'green', at=(300, 200)),
]

HAND_MADE = {
    'all stars': ([0, 1, 4], [0, 1, 4]),
    'the three stars': ([0, 1, 4], [0, 1, 4]),
    'stars': ([0, 1, 4], [0, 1, 4]),
    # Two presuppositions that fail: nobody knows which are meant, so nothing is proved.
    'the two stars': ([0, 1, 4], []),
    'both rings': ([2], []),
    # An outline is red, too: one reader counts it.
    'the two red stars': ([0, 1, 4], [0, 1]),
    'all large stars': ([1, 4], [1, 4]),
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


@pytest.mark.parametrize('text', HAND_MADE)
def test_evaluator_by_hand(text):
    readings = [targets_of(text, SCENE, 320, 240, reader) for reader in ('generous', 'strict')]
    assert readings == list(HAND_MADE[text])


@pytest.mark.parametrize('flavour', ['refshapes', 'refshapes+', 'refshapesg'])
def test_it_reads_expressions_of_one_object_as_the_other_evaluator(flavour):
    for index in range(10):
        sample = make_sample(3, flavour, 'val', index)
        scene = [o.to_dict() for o in sample.scene.objects], sample.scene.width, sample.scene.height
        for _, said in sample.references:
            for text, _ in said:
                for reader in ('generous', 'strict'):
                    assert targets_of(text, *scene, reader) == true_of(text, *scene, reader)


def prove(text, targets, objects, width, height):
    assert targets_of(text, objects, width, height, 'generous') == list(targets), text
    assert targets_of(text, objects, width, height, 'strict') == list(targets), text


@pytest.mark.parametrize('split', SPLITS)
def test_expressions_describe_their_targets_and_no_other(split):
    kinds, sizes = Counter(), Counter()
    for index in range(30):
        sample = make_sample(21, 'grefshapes', split, index)
        scene = sample.scene
        objects = [o.to_dict() for o in scene.objects]
        for targets, said in sample.references:
            assert len({text for text, _ in said}) == len(said) > 0
            sizes[min(len(targets), 2)] += len(said)
            for text, meaning in said:
                kinds[meaning['kind']] += 1
                prove(text, targets, objects, scene.width, scene.height)
        assert {min(len(t), 2) for t, _ in sample.references} == {0, 1, 2}, 'each kind an image'
    assert {'group', 'side', 'pair', 'nothing', 'appearance'} <= set(kinds)
    # As in gRefCOCO: most of one object, then of several, then of nothing.
    shares = [sizes[number] / sizes.total() for number in range(3)]
    assert 0.08 < shares[0] < 0.22 and 0.45 < shares[1] < 0.65 and 0.22 < shares[2] < 0.42


def test_an_expression_of_nothing_is_nearly_of_something():
    """One word changed: without it the expression fits an object of the scene."""
    for index in range(20):
        sample = make_sample(8, 'grefshapes', 'train', index)
        looks = [o.to_dict() for o in sample.scene.objects]
        for targets, said in sample.references:
            for _, meaning in said if not targets else ():
                wanted = {key: value for key, value in meaning['what'].items() if value}
                misses = [
                    sum(
                        value not in (look['colour'], look['second'])
                        if key in ('colour', 'second')
                        else value != look[key]
                        for key, value in wanted.items()
                    )
                    for look in looks
                ]
                assert min(misses) == 1, meaning


def test_the_demo_reads_expressions_to_their_end():
    """The exception of "all rings except the ..." comes last."""
    file = 'cris_refshapes-clip_1xb16-4e_grefshapes-256x256.py'
    cfg = Config.fromfile(Path(__file__).resolve().parents[2] / 'configs' / 'refshapes' / file)
    encoder = cfg.model.text_encoder
    samples = [make_sample(0, 'grefshapes', 'train', index) for index in range(40)]
    said = [one for sample in samples for _, said in sample.references for one in said]
    assert any(meaning['kind'] == 'except' for _, meaning in said)
    tokens = load_clip_tokenizer(encoder.model)([text for text, _ in said], context_length=77)
    assert (tokens != 0).sum(1).max() <= encoder.context_length


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('grefshapes')
    assert make_refshapes(folder, 'grefshapes', SIZES, seed=11, workers=2)
    return folder


def build(made, **kwargs):
    init_default_scope('mmseg')
    settings = dict(
        type='GRefCOCODataset',
        data_root=str(made),
        ann_file='grefshapes/instances.json',
        split_file='grefshapes/grefs(unc).json',
        split='train',
        data_prefix=dict(img_path='train2014'),
        pipeline=[],
    )
    return DATASETS.build({**settings, **kwargs})


def test_same_bytes_for_any_number_of_workers(made, tmp_path):
    make_refshapes(tmp_path, 'grefshapes', SIZES, seed=11, workers=1)
    for name in ('grefs(unc).json', 'instances.json', 'scenes.json'):
        one, two = (folder / 'grefshapes' / name for folder in (tmp_path, made))
        assert one.read_bytes() == two.read_bytes()
    assert not (made / 'grefshapes' / 'refs(unc).p').exists()


def test_layout_is_that_of_grefcoco(made):
    refs = json.loads((made / 'grefshapes' / 'grefs(unc).json').read_text())
    instances = json.loads((made / 'grefshapes' / 'instances.json').read_text())
    of_image = {a['id']: a['image_id'] for a in instances['annotations']}
    categories = {a['id']: a['category_id'] for a in instances['annotations']}
    assert [s['sent_id'] for r in refs for s in r['sentences']] == list(
        range(sum(len(r['sentences']) for r in refs))
    )
    for ref in refs:
        if ref['ann_id'] == [-1]:
            assert ref['category_id'] == [-1]
            continue
        assert {of_image[a] for a in ref['ann_id']} == {ref['image_id']}
        assert ref['category_id'] == [categories[a] for a in ref['ann_id']]
    # images of their own, in the folder of the other flavours
    assert min(of_image.values()) == 12_000_001


@pytest.mark.parametrize('split', SPLITS)
def test_the_data_set_reads_what_the_scenes_prove(made, split):
    """From the files alone: the targets are the objects that the expression describes."""
    scenes = json.loads((made / 'grefshapes' / 'scenes.json').read_text())['scenes']
    dataset = build(made, split=split, group_by='image')
    assert len(dataset) == SIZES[split]
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        scene = scenes[str(item['img_id'])]
        numbers = [o['ann_id'] for o in scene['objects']]
        for text, targets in zip(item['expressions'], item['targets']):
            found = sorted(numbers.index(item['instances'][t]['ann_id']) for t in targets)
            prove(text, found, scene['objects'], scene['width'], scene['height'])


@pytest.mark.slow
def test_every_expression_of_the_default_data(tmp_path):
    make_refshapes(tmp_path, 'grefshapes')
    refs = json.loads((tmp_path / 'grefshapes' / 'grefs(unc).json').read_text())
    scenes = json.loads((tmp_path / 'grefshapes' / 'scenes.json').read_text())['scenes']
    for ref in refs:
        scene = scenes[str(ref['image_id'])]
        numbers = [o['ann_id'] for o in scene['objects']]
        targets = [numbers.index(a) for a in ref['ann_id'] if a != -1]
        for sentence in ref['sentences']:
            prove(sentence['sent'], targets, scene['objects'], scene['width'], scene['height'])
