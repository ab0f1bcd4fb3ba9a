"""CutMix, MixGen and CopyPaste on images of one colour each: whose pixel is whose can be seen."""

import copy
import pickle
import re

import numpy as np
import pytest
from mmseg.registry import DATASETS, TRANSFORMS

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.visualization.browse import draw_training_sample

LOAD = [
    dict(type='LoadReferringImage'),
    dict(type='LoadReferentMask'),
    dict(type='Resize', scale=(64, 48), keep_ratio=False),
]
NAMES = ['CutMix', 'MixGen', 'CopyPaste']


def build(mini, name, transforms=LOAD, **kwargs):
    """The mini data set, each box of a category of its own."""
    for number, annotation in enumerate(mini.instances['annotations']):
        annotation['category_id'] = number
    mini.instances['categories'] = [dict(id=i, name=f'box {i}') for i in range(9)]
    mini.write()
    mix = dict(type=name, transforms=list(transforms), **{'prob': 1.0, **kwargs})
    return DATASETS.build(
        mini.config([dict(type='SampleExpressions'), mix, dict(type='PackReferringInputs')])
    )


def drawn(dataset, index, epoch):
    """Source of each pixel (the number of its image), the mask, the metainfo."""
    packed = dataset[SampleIndex(index, epoch, 0)]
    image = packed['inputs'].numpy().astype(float)
    assert (image[0] == image[1]).all() and (image[0] == image[2]).all()
    sample = packed['data_samples']
    return image[0] / 40, sample.gt_sem_seg.data[0].numpy(), sample


def target_mask(mini, sample):
    return mini.masks[{1: 101, 2: 102, 3: 103, 4: 104, 5: 201}[sample.ref_ids[0]]]


def check_record(mini, sample, kind, pixels):
    """Whether the sample says what was mixed in: nothing, or pixels of the image that it names."""
    if len(pixels) == 0:
        assert 'mixed' not in sample
    else:
        path = mini.root / 'images' / f'image_{round(pixels[0])}.jpg'
        assert sample.mixed == dict(kind=kind, img_path=str(path))


def test_cut_mix_covers_a_rectangle_and_takes_it_out_of_the_mask(mini):
    dataset = build(mini, 'CutMix', min_visible=0.5)
    shares, sources, touched = [], set(), 0
    for epoch in range(60):
        source, mask, sample = drawn(dataset, 1, epoch)  # 'green box', image 2
        covered = np.abs(source - 2) > 0.4
        whole = target_mask(mini, sample)
        assert np.array_equal(mask, whole & ~covered)
        assert mask.sum() >= 0.5 * whole.sum()
        assert sample.expressions == ['green box'] and sample.sent_ids == [20]
        if covered.any():
            rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
            area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            assert covered.sum() == area  # one full rectangle
            patch = np.unique(source[covered].round(1))
            assert len(patch) == 1  # of one other image
            sources.add(patch[0])
        shares.append(covered.mean())
        touched += mask.sum() < whole.sum()
        check_record(mini, sample, 'CutMix', source[covered])
    assert sources == {1, 3, 4} and touched > 5
    assert max(shares) > 0.5 and min(shares) < 0.1


def test_the_rectangle_has_the_published_area():
    mix = TRANSFORMS.build(dict(type='CutMix', transforms=[], alpha=1.0))
    rng = np.random.default_rng(0)
    areas, centres = [], []
    for _ in range(4000):
        rows, columns = mix.rectangle(400, 600, rng)
        assert 0 <= rows.start <= rows.stop <= 400 and 0 <= columns.start <= columns.stop <= 600
        if rows.start > 0 and rows.stop < 400 and columns.start > 0 and columns.stop < 600:
            height, width = rows.stop - rows.start, columns.stop - columns.start
            assert abs(width - 1.5 * height) < 3  # the image's proportions
        areas.append((rows.stop - rows.start) * (columns.stop - columns.start) / 240_000)
        centres.append((rows.start + rows.stop) / 2)
    # Expected area of the clipped rectangle of sides s = sqrt(u), u uniform: along one axis the
    # clipped length is 1 - (1 - s/2)^2 ... integrated over a uniform centre: s - s^2 / 4.
    sides = np.sqrt((np.arange(100_000) + 0.5) / 100_000)
    assert np.mean(areas) == pytest.approx(np.mean((sides - sides**2 / 4) ** 2), abs=0.012)
    assert np.mean(centres) == pytest.approx(200, abs=5)


@pytest.mark.parametrize('weight', [0.5, 0.75])
def test_mix_gen_blends_images_and_joins_masks_and_expressions(mini, weight):
    dataset = build(mini, 'MixGen', weight=weight)
    texts = {s['sent']: r for r in mini.refs for s in r['sentences']}
    seconds = set()
    for epoch in range(30):
        source, mask, sample = drawn(dataset, 1, epoch)
        text = sample.expressions[0]
        assert text.startswith('green box ')
        other = texts[text.removeprefix('green box ')]
        seconds.add(other['ref_id'])
        assert np.array_equal(mask, mini.masks[102] | mini.masks[other['ann_id']])
        blend = weight * 2 + (1 - weight) * other['image_id']
        assert np.abs(source - blend).max() <= 1 / 40
        assert sample.sent_ids == [20] and sample.ref_ids == [2]
        check_record(mini, sample, 'MixGen', [other['image_id']])
    assert seconds == {1, 3, 4, 5}


def test_copy_paste_pastes_one_object_and_takes_it_out_of_the_mask(mini):
    dataset = build(mini, 'CopyPaste', scale=(0.5, 2.0), min_visible=0.6)
    sizes, touched = [], 0
    for epoch in range(80):
        source, mask, sample = drawn(dataset, 2, epoch)  # image 3
        pasted = np.abs(source - 3) > 0.4
        whole = target_mask(mini, sample)
        assert pasted.any() and len(np.unique(source[pasted].round(1))) == 1
        assert np.array_equal(mask, whole & ~pasted)
        assert mask.sum() >= 0.6 * whole.sum() and sample.expressions[0] in {
            'right box',
            'the low box',
        }
        height, width = (np.ptp(np.flatnonzero(pasted.any(axis))) + 1 for axis in (1, 0))
        assert pasted.sum() == height * width  # the boxes' shape, whole
        assert abs(width - height * 20 / 15) < 2  # and proportions; all boxes are 20x15
        sizes.append(width / 20)
        touched += mask.sum() < whole.sum()
        check_record(mini, sample, 'CopyPaste', source[pasted])
    assert touched > 5 and 0.5 <= min(sizes) < 0.7 and 1.8 < max(sizes) <= 2.0


def test_copy_paste_keeps_to_the_shape_and_mirrors_it(mini):
    # an L without symmetry, in image 4; everything else is of the referent's category
    mini.instances['annotations'][3]['segmentation'] = [
        [10, 5, 20, 5, 20, 25, 40, 25, 40, 35, 10, 35]
    ]
    dataset = build(mini, 'CopyPaste', scale=(1, 1), min_visible=0.0)
    for annotation in mini.instances['annotations']:
        annotation['category_id'] = 4 if annotation['id'] == 104 else 1
    dataset = DATASETS.build({**mini.write().config(), 'pipeline': dataset.pipeline.transforms})
    shapes = set()
    for epoch in range(20):
        source, _, sample = drawn(dataset, 1, epoch)
        pasted = np.abs(source - 2) > 0.4
        check_record(mini, sample, 'CopyPaste', source[pasted])
        if not pasted.any():  # the one item that fits was not drawn in time
            continue
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        crop = pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert np.unique(source[pasted].round(1)) == [4.0]
        assert crop.shape == (30, 30) and crop.sum() == 10 * 20 + 30 * 10
        shapes.add('left' if crop[:, 0].all() else 'right')
    assert shapes == {'left', 'right'}


def test_copy_paste_leaves_out_the_referents_category(mini):
    def pastes(number, **options):
        dataset = build(mini, 'CopyPaste', **options)
        for annotation in mini.instances['annotations']:
            annotation['category_id'] = 1
        dataset = DATASETS.build({**mini.write().config(), 'pipeline': dataset.pipeline.transforms})
        return [(np.abs(drawn(dataset, 1, v)[0] - 2) > 0.4).any() for v in range(number)]

    assert not any(pastes(5))
    assert all(pastes(5, other_category=False))


@pytest.mark.parametrize('name', NAMES)
def test_the_same_sample_every_time_and_in_every_process(mini, name):
    dataset = build(mini, name)
    assert draw_training_sample(dataset[SampleIndex(1)]).shape[1] == 64
    again = pickle.loads(pickle.dumps(dataset))
    first = [dataset[SampleIndex(i, v, 7)] for v in range(3) for i in range(4)]
    for _ in range(3):
        dataset[SampleIndex(2, 9, 1)]
    differ = 0
    for number, one in enumerate(first):
        epoch, index = divmod(number, 4)
        other = again[SampleIndex(index, epoch, 7)]
        assert (one['inputs'] == other['inputs']).all()
        masks = (sample['data_samples'].gt_sem_seg.data for sample in (one, other))
        assert (next(masks) == next(masks)).all()
        next_seed = again[SampleIndex(index, epoch, 8)]
        differ += not (one['inputs'] == next_seed['inputs']).all()
    assert differ > 6


@pytest.mark.parametrize('name', NAMES)
def test_a_sample_that_is_not_drawn_is_as_without_mixing(mini, name):
    dataset = build(mini, name, prob=0.4)
    without = DATASETS.build(
        mini.config([dict(type='SampleExpressions'), *LOAD, dict(type='PackReferringInputs')])
    )
    same = 0
    for epoch in range(60):
        one, other = (data[SampleIndex(3, epoch, 0)] for data in (dataset, without))
        same += (one['inputs'] == other['inputs']).all()
        if (one['inputs'] == other['inputs']).all():
            assert one['data_samples'].expressions == other['data_samples'].expressions
        assert ('mixed' in one['data_samples']) or (one['inputs'] == other['inputs']).all()
    assert 25 <= same <= 50


def crop_to_number(results):
    """A transform that gives every image another size."""
    results['img'] = results['img'][: 10 + results['img_id']]
    results['gt_seg_map'] = results['gt_seg_map'][: 10 + results['img_id']]
    return results


@pytest.mark.parametrize('name', NAMES)
def test_several_expressions_and_sizes_are_errors(mini, name):
    dataset = build(mini, name)
    many = DATASETS.build(mini.config(list(dataset.pipeline.transforms[1:])))
    with pytest.raises(ValueError, match=rf'{name} needs one expression, not 3: put SampleEx'):
        many[SampleIndex(0)]
    dataset = build(mini, name, transforms=[*LOAD, crop_to_number])
    sizes = r'`transforms` must resize to one size, not \(\(11, 64, 3\), \(1[234], 64, 3\)\)'
    with pytest.raises(ValueError, match=f'{name}: {sizes}'):
        dataset[SampleIndex(0)]


def test_no_target_expressions(mini):
    no_target, thing = (
        dict(img=np.full((9, 9, 3), v, np.uint8), gt_seg_map=np.zeros((9, 9), np.uint8))
        for v in (10, 20)
    )
    no_target.update(expressions=['no cat'], targets=[[]], instances=[], num_targets=[0])
    thing.update(
        expressions=['dog'], targets=[[0]], instances=[dict(category_id=3)], num_targets=[1]
    )
    thing['gt_seg_map'][2:4] = 1
    rng = np.random.default_rng(0)
    cut, gen, paste = (TRANSFORMS.build(dict(type=name, transforms=[])) for name in NAMES)
    # whether a pasted object is what is said not to be there cannot be known
    assert not paste.fits(no_target, thing) and not paste.fits(thing, no_target)
    assert paste.fits(dict(thing, instances=[dict(category_id=4)]), thing)
    one = copy.deepcopy(no_target)
    cut.mix(one, thing, rng)
    assert not one['gt_seg_map'].any() and (one['img'] == 20).any()
    one = copy.deepcopy(no_target)
    one['gt_seg_map'][1:3] = 255  # not counted, unless an expression describes it
    gen.mix(one, thing, rng)
    assert one['gt_seg_map'][:, 0].tolist() == [0, 255, 1, 1, 0, 0, 0, 0, 0]
    assert one['expressions'] == ['no cat dog']


COUNTS = {'left box': 1, 'both boxes': 2, 'all boxes': 2, 'the round thing': 0, 'green box': 1}


def mixed_samples(gref_mini, mix, epochs):
    """Pairs (sample, its mask) of every expression of a data set with counts, where it is mixed."""
    pipeline = [
        dict(type='SampleExpressions'),
        dict(transforms=LOAD, prob=1.0, **mix),
        dict(type='PackReferringInputs'),
    ]
    dataset = DATASETS.build(gref_mini.config(pipeline, group_by='expression'))
    for index in range(len(dataset)):
        for epoch in range(epochs):
            sample = dataset[SampleIndex(index, epoch, 0)]['data_samples']
            if 'mixed' in sample:
                yield sample, sample.gt_sem_seg.data[0].numpy()


def test_mix_gen_counts_the_targets_of_both_expressions(gref_mini):
    gref_mini.refs[4].update(
        split='train'
    )  # no target in image 2, so that neither of two can have one
    counts = {**COUNTS, 'red box': 0, 'blue box': 0}
    pairs = {f'{one} {two}': (one, two) for one in counts for two in counts}
    seen = set()
    for sample, mask in mixed_samples(gref_mini.write(), dict(type='MixGen'), epochs=12):
        numbers = [counts[text] for text in pairs[sample.expressions[0]]]
        assert sample.num_targets == [sum(numbers)]
        assert mask.any() == (sum(numbers) > 0)
        assert sample.num_distractors == [-1]
        seen.add(tuple(numbers))
    assert {(0, 1), (1, 0), (0, 0), (1, 2), (2, 1), (1, 1)} <= seen


@pytest.mark.parametrize(
    'mix',
    [
        dict(type='CutMix', min_visible=0.0),
        dict(type='CopyPaste', min_visible=0.0, other_category=False, scale=(1, 3)),
    ],
)
def test_what_hides_a_whole_referent_leaves_no_target(gref_mini, mix):
    hidden = 0
    for sample, mask in mixed_samples(gref_mini, mix, epochs=40):
        number = COUNTS[sample.expressions[0]]
        assert sample.num_targets == [number if mask.any() else 0]
        assert sample.num_distractors == [-1]
        hidden += number > 0 and not mask.any()
    assert hidden > 3


def test_a_sample_that_is_not_mixed_keeps_its_counts(gref_mini):
    # CopyPaste finds no object of another category in these data, so nothing is pasted.
    pipeline = [
        dict(type='SampleExpressions'),
        dict(type='CopyPaste', transforms=LOAD, prob=1.0),
        dict(type='PackReferringInputs'),
    ]
    dataset = DATASETS.build(gref_mini.config(pipeline, group_by='expression'))
    samples = [dataset[SampleIndex(index)]['data_samples'] for index in range(len(dataset))]
    assert [s.num_targets[0] for s in samples] == [COUNTS[s.expressions[0]] for s in samples]
    # Image 1 has two boxes, image 2 one.
    distractors = {'left box': 1, 'the round thing': -1}
    assert [s.num_distractors[0] for s in samples] == [
        distractors.get(s.expressions[0], 0) for s in samples
    ]


def test_items_are_copies_and_copied_samples_share_them(mini):
    items = []

    class Spy:
        def __call__(self, results):
            items.append(results['items'])
            return results

    dataset = DATASETS.build(mini.config([Spy()]))
    dataset[SampleIndex(0)]
    view = items[0]
    assert len(view) == len(dataset) == 5
    view[1]['expressions'].append('no')
    assert view[1]['expressions'] == ['green box']
    assert copy.deepcopy(dict(items=view))['items'] is view


@pytest.mark.parametrize(
    ('name', 'argument', 'value'),
    [
        *((name, 'prob', 1.5) for name in NAMES),
        *(('CutMix', 'alpha', value) for value in (0, float('nan'), float('inf'))),
        *(('CutMix', 'min_visible', value) for value in (-1, float('nan'))),
        *(('MixGen', 'weight', value) for value in (1, 0.0)),
        *(('CopyPaste', 'scale', value) for value in [(0, 1), (2, 1), (1, float('inf'))]),
        ('CopyPaste', 'min_visible', 2),
    ],
)
def test_bad_arguments_are_refused(name, argument, value):
    with pytest.raises(ValueError, match=f'{name}: .*{re.escape(f"{argument}={value}")}'):
        TRANSFORMS.build({'type': name, 'transforms': [], argument: value})


def test_repr_names_the_settings():
    assert 'scale=(0.5, 1.5)' in repr(TRANSFORMS.build(dict(type='CopyPaste', transforms=[])))
