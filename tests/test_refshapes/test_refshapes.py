"""RefShapes: layout, determinism and the statistics that make it a hard stand-in."""

import hashlib
import json
import pickle
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from pycocotools import mask as coco_mask
from refshapes_truth.group_truth import targets_of
from refshapes_truth.scenes import load_scenes

import nemo_mmseg  # noqa: F401  (registers)
from nemo_mmseg.refshapes import SPLITS, VARIANTS, make_refshapes, make_sample
from nemo_mmseg.refshapes.scene import MIN_VISIBLE
from nemo_mmseg.refshapes.segment import to_coco

SEED = 11
_SIZES = {'train': 30, 'val': 40, 'testA': 12, 'testB': 12}
# Generalized scenes take longer, and no statistics are made of them.
SIZES = {v: _SIZES for v in VARIANTS} | {
    'grefshapes': {'train': 12, 'val': 4, 'testA': 3, 'testB': 3}
}


@pytest.fixture(scope='module')
def made(make_once) -> Path:
    """All variants."""

    def make(folder: Path) -> None:
        for variant in VARIANTS:
            assert make_refshapes(folder, variant, SIZES[variant], SEED, workers=2)

    return make_once('refshapes_statistics', make)


class PlainUnpickler(pickle.Unpickler):
    """Refuses everything that is not a plain container, string or number."""

    def find_class(self, module, name):
        raise AssertionError(f'the pickle asks for {module}.{name}')


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def split_file(folder: Path, variant: str) -> Path:
    return folder / variant / ('grefs(unc).json' if variant == 'grefshapes' else 'refs(unc).p')


def load(folder: Path, variant: str) -> tuple[list[dict], dict]:
    with open(split_file(folder, variant), 'rb') as file:
        refs = json.load(file) if variant == 'grefshapes' else PlainUnpickler(file).load()
    return refs, json.loads((folder / variant / 'instances.json').read_text())


def test_same_bytes_for_any_number_of_workers(tmp_path):
    sizes = {'train': 20, 'val': 4, 'testA': 4, 'testB': 4}
    for workers in (1, 2):
        make_refshapes(tmp_path / str(workers), 'refshapes+', sizes, SEED, workers)
    alone, together = digest(tmp_path / '1'), digest(tmp_path / '2')
    assert alone == together
    assert len(alone) == sum(sizes.values()) + 4


# Of seed 5, four images of train and two of each other split: annotation files, and images.
PINNED = {
    'refshapes': ('b1a55d8a93b9aa0d', 'cb61fbf66f855e54'),
    'refshapes+': ('2279b2adf34b69e3', 'ff2eec449a48c507'),
    'refshapesg': ('4922a4b5e731adca', '22dd50473a62da43'),
    'grefshapes': ('3f4de3709a3adb34', '75cbf375bf5842e4'),
}


@pytest.mark.skipif(cv2.__version__[:2] != '5.', reason='OpenCV 4 draws some edges otherwise')
@pytest.mark.parametrize('variant', VARIANTS)
def test_the_data_of_a_seed_never_changes(variant, tmp_path):
    sizes = {'train': 4, 'val': 2, 'testA': 2, 'testB': 2}
    make_refshapes(tmp_path, variant, sizes, seed=5, workers=1)

    def pin(paths):
        found = hashlib.sha256()
        for path in sorted(paths):
            found.update(path.name.encode() + path.read_bytes())
        return found.hexdigest()[:16]

    (tmp_path / variant / 'settings.json').unlink()
    annotations = pin((tmp_path / variant).iterdir())
    assert (annotations, pin((tmp_path / 'train2014').iterdir())) == PINNED[variant]


KNOBS = [dict(distractors='easy'), dict(distractors='hard'), dict(context=0.8)]


@pytest.mark.parametrize('knob', KNOBS, ids=str)
def test_knobs_change_training_alone(tmp_path, knob):
    sizes = {'train': 3, 'val': 2, 'testA': 1, 'testB': 1}
    folders = tmp_path / 'plain', tmp_path / 'knob'
    for folder, given in zip(folders, ({}, knob)):
        make_refshapes(folder, 'refshapes+', sizes, SEED, 1, **given)
    made = [load(folder, 'refshapes+') for folder in folders]
    tested = [[r for r in refs if r['split'] != 'train'] for refs, _ in made]
    assert tested[0] == tested[1] and tested[0]
    ids = {r['image_id'] for r in tested[0]}
    of_tests = [[a for a in data['annotations'] if a['image_id'] in ids] for _, data in made]
    assert of_tests[0] == of_tests[1]
    pictures = [digest(folder / 'train2014') for folder in folders]
    same = {name for name in pictures[0] if pictures[0][name] == pictures[1][name]}
    assert same >= {i['file_name'] for i in made[0][1]['images'] if i['id'] in ids}
    assert len(same) < sum(sizes.values())
    settings = json.loads((folders[1] / 'refshapes+' / 'settings.json').read_text())
    assert settings == dict(
        version=3, sizes=sizes, seed=SEED, **{'distractors': 'normal', 'context': 0.0, **knob}
    )


def test_distractors_of_training_scenes():
    """Objects in all, and of the category that has most."""
    found = {}
    for name in ('easy', 'normal', 'hard'):
        scenes = [make_sample(6, 'refshapes+', 'train', i, name).scene for i in range(30)]
        looks = [Counter(o.category for o in scene.objects) for scene in scenes]
        found[name] = [(sum(n.values()), max(n.values())) for n in looks]
    assert all(2 <= total <= 3 and most <= 2 for total, most in found['easy'])
    assert all(5 <= total <= 9 and most >= 4 for total, most in found['hard'])
    easy, normal, hard = (np.mean([most for _, most in of]) for of in found.values())
    assert easy + 1 < normal and normal + 1 < hard


def test_the_context_predicts_the_referent():
    """By the mean colour of the corners, and by the companions, with the nearest other scene."""
    hits = {}
    for context in (0.0, 1.0):
        corners, beside, names = [], [], []
        for index in range(90):
            sample = make_sample(6, 'refshapes+', 'train', index, 'normal', context)
            scene = sample.scene
            targets = {scene.objects[t].category for (t,), _ in sample.references}
            assert (scene.main is None) == (context == 0)
            assert context == 0 or targets == {scene.main}
            names.append(sorted(targets)[0])
            corner = scene.image[:12, :12].reshape(-1, 3).mean(0)
            corners.append(corner / corner.mean())
            beside.append({o.category for o in scene.objects} - targets)
        tint = np.linalg.norm(np.array(corners)[:, None] - np.array(corners), axis=-1)
        shared = np.array([[len(a & b) / max(len(a | b), 1) for b in beside] for a in beside])
        for cue, distance in (('tint', tint), ('companions', -shared)):
            np.fill_diagonal(distance, np.inf)
            nearest = distance.argmin(1)
            hits[cue, context] = np.mean([names[i] == names[j] for i, j in enumerate(nearest)])
    # One of sixteen categories is right by chance: 0.06.
    for cue in ('tint', 'companions'):
        assert hits[cue, 0.0] < 0.2 < 0.3 < hits[cue, 1.0], hits


def test_a_sample_depends_on_its_number_and_seed_alone():
    one, two = make_sample(3, 'refshapes', 'val', 5), make_sample(3, 'refshapes', 'val', 5)
    assert np.array_equal(one.scene.image, two.scene.image)
    assert one.references == two.references
    assert make_sample(4, 'refshapes', 'val', 5).references != one.references


def test_second_call_does_nothing_and_other_settings_are_refused(made):
    before, sizes = digest(made), SIZES['refshapes']
    assert not make_refshapes(made, 'refshapes', sizes, SEED)
    with pytest.raises(FileExistsError, match='seed: 11 there, 12 asked'):
        make_refshapes(made, 'refshapes', sizes, seed=12)
    with pytest.raises(FileExistsError, match='sizes'):
        make_refshapes(made, 'refshapes', {**sizes, 'val': 61}, SEED)
    with pytest.raises(FileExistsError, match="distractors: .*'normal' there, hard asked"):
        make_refshapes(made, 'refshapes', sizes, SEED, distractors='hard')
    assert digest(made) == before


def test_version_2_is_named(tmp_path):
    file = tmp_path / 'refshapes' / 'settings.json'
    file.parent.mkdir()
    file.write_text('{"version": 2, "sizes": {"train": 1}, "seed": 0}')
    with pytest.raises(FileExistsError, match='version 2.*only version 3 is made now'):
        make_refshapes(tmp_path, 'refshapes', {'train': 1})
    assert [path.name for path in file.parent.iterdir()] == ['settings.json']


@pytest.mark.parametrize(
    'content', [b'', b'{', b'\x83', b'[1]', b'null', b'"a"', b'[' * 10**5 + b']' * 10**5]
)
def test_damaged_settings_are_named(tmp_path, content):
    file = tmp_path / 'refshapes' / 'settings.json'
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf'{file}.*Delete the folder or choose another') as caught:
        make_refshapes(tmp_path, 'refshapes', {'train': 1})
    assert not isinstance(caught.value, UnicodeError)
    assert [path.name for path in file.parent.iterdir()] == ['settings.json']


@pytest.mark.parametrize(
    'wrong',
    [
        dict(variant='refcoco'),
        dict(sizes={'test': 1}),
        dict(distractors='none'),
        dict(context=1.5),
        dict(context=float('nan')),
    ],
)
def test_unknown_settings_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match='refcoco|test|none|1.5|nan'):
        make_refshapes(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('variant', VARIANTS)
def test_layout(made, variant):
    refs, instances = load(made, variant)
    images = {i['id']: i for i in instances['images']}
    annotations = {a['id']: a for a in instances['annotations']}
    assert len(images) == sum(SIZES[variant].values()) == len(instances['images'])
    assert len(annotations) == len(instances['annotations'])
    categories = {c['id'] for c in instances['categories']}
    assert {a['category_id'] for a in annotations.values()} <= categories
    for image in images.values():
        picture = cv2.imread(str(made / 'train2014' / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3)
        assert image['width'] >= 320 and image['height'] >= 240
    assert len({(i['width'], i['height']) for i in images.values()}) >= 4
    assert [r['ref_id'] for r in refs] == list(range(len(refs)))
    sent_ids = [s['sent_id'] for r in refs for s in r['sentences']]
    assert sent_ids == list(range(len(sent_ids)))
    for ref in refs:
        assert ref['sent_ids'] == [s['sent_id'] for s in ref['sentences']]
        assert all(s['tokens'] == s['sent'].split() for s in ref['sentences'])
        name = images[ref['image_id']]['file_name']
        if variant == 'grefshapes':
            targets = [a for a in ref['ann_id'] if a != -1]
            assert ref['category_id'] == [annotations[a]['category_id'] for a in targets] or [-1]
            assert ref['file_name'] == name
        else:
            targets = [ref['ann_id']]
            assert ref['category_id'] == annotations[ref['ann_id']]['category_id']
            assert ref['file_name'] == f'{name.removesuffix(".jpg")}_{ref["ann_id"]}.jpg'
        assert all(annotations[a]['image_id'] == ref['image_id'] for a in targets)


def test_variants_share_a_folder_but_no_image(made):
    ids = [i['id'] for variant in VARIANTS for i in load(made, variant)[1]['images']]
    assert len(ids) == len(set(ids)) == len(list((made / 'train2014').iterdir()))


@pytest.mark.parametrize('variant', ['refshapes', 'grefshapes'])
def test_the_data_sets_read_what_the_scenes_prove(made, variant):
    """From the files alone: the targets are the objects that the expression describes."""
    kind = 'GRefCOCODataset' if variant == 'grefshapes' else 'RefCOCODataset'
    scenes = load_scenes(split_file(made, variant))
    for split in SPLITS:
        dataset = DATASETS.build(
            dict(
                type=kind,
                data_root=str(made),
                ann_file=f'{variant}/instances.json',
                split_file=f'{variant}/{split_file(made, variant).name}',
                split=split,
                data_prefix=dict(img_path='train2014'),
                group_by='image',
            )
        )
        assert len(dataset) == SIZES[variant][split]
        for item in map(dataset.get_data_info, range(len(dataset))):
            scene = scenes[item['img_id']]
            numbers = [o['ann_id'] for o in scene['objects']]
            for text, targets in zip(item['expressions'], item['targets']):
                found = sorted(numbers.index(item['instances'][t]['ann_id']) for t in targets)
                for reader in ('generous', 'strict'):
                    described = targets_of(
                        text, scene['objects'], scene['width'], scene['height'], reader
                    )
                    assert described == found, text


@pytest.mark.parametrize('variant', ['refshapes', 'refshapes+', 'refshapesg'])
def test_statistics(made, variant):
    refs, instances = load(made, variant)
    by_image: dict[int, list] = {}
    for annotation in instances['annotations']:
        by_image.setdefault(annotation['image_id'], []).append(annotation)
    counts = [len(v) for v in by_image.values()]
    assert min(counts) >= 2 and max(counts) <= 9 and len(set(counts)) == 8
    size = {i['id']: i['width'] * i['height'] for i in instances['images']}
    shares = np.array([a['area'] / size[a['image_id']] for a in instances['annotations']])
    # Log-uniform from 0.8 to 10 %; at least 0.68 of an object is visible.
    assert min(shares) > 0.0045 and max(shares) < 0.103
    assert 0.02 < np.median(shares) < 0.035
    thirds = np.histogram(shares, 0.008 * 12.5 ** np.linspace(0, 1, 4))[0] / len(shares)
    assert min(thirds) > 0.15 and max(thirds) < 0.47, thirds

    def distractors(ref):
        same = [a['category_id'] for a in by_image[ref['image_id']]]
        return same.count(ref['category_id']) - 1

    split = {s: [distractors(r) for r in refs if r['split'] == s] for s in SPLITS}
    assert np.mean(np.array(split['val']) > 0) >= 0.6
    assert max(split['testA']) <= 1
    assert min(split['testB']) >= 3
    assert {0, 1, 2} <= set(split['train'])
    assert 2 <= len(split['train']) / SIZES[variant]['train'] <= 3.5


def test_objects_hardly_repeat_and_overlap_but_stay_visible():
    looks, overlaps = Counter(), 0
    for index in range(60):
        for obj in make_sample(5, 'refshapes+', 'train', index).scene.objects:
            looks[(obj.category, obj.colour, obj.texture, obj.second)] += 1
        scene = make_sample(5, 'refshapes', 'testB', index).scene
        assert not np.sum(scene.masks, 0).max() > 1
        for obj in scene.objects:
            assert obj.visible >= MIN_VISIBLE
            overlaps += bool(obj.covers)
    assert len(looks) > 0.75 * looks.total()
    assert overlaps > 30


def test_segmentations_are_the_visible_parts(made):
    _, instances = load(made, 'refshapes')
    kinds = Counter()
    annotations = {a['id']: a for a in instances['annotations']}
    for index in range(SIZES['refshapes']['val']):
        scene = make_sample(SEED, 'refshapes', 'val', index).scene
        image = instances['images'][index]
        for i, mask in enumerate(scene.masks):
            annotation = annotations[image['id'] * 10 + i]
            segmentation = annotation['segmentation']
            if isinstance(segmentation, list):
                kinds['polygon'] += 1
                rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *mask.shape))
            elif isinstance(segmentation['counts'], list):
                kinds['uncompressed'] += 1
                rle = coco_mask.frPyObjects(segmentation, *mask.shape)
            else:
                kinds['compressed'] += 1
                rle = segmentation
            decoded = coco_mask.decode(rle).astype(bool)
            assert (decoded & mask).sum() / (decoded | mask).sum() > 0.94
            assert annotation['area'] == decoded.sum()
            assert annotation['bbox'] == coco_mask.toBbox(rle).tolist()
    assert min(kinds.values()) > 0 and len(kinds) == 3


def test_to_coco_by_hand():
    mask = np.zeros((6, 8), bool)
    mask[1:5, 2:6] = True
    square = to_coco(mask)
    assert square['area'] == 16 and square['bbox'] == [2, 1, 4, 4]
    assert isinstance(square['segmentation'], list)
    plain = to_coco(mask, uncompressed=True)
    assert plain['segmentation'] == {'size': [6, 8], 'counts': [13, 4, 2, 4, 2, 4, 2, 4, 13]}
    mask[2:4, 3:5] = False
    ring = to_coco(mask)
    assert isinstance(ring['segmentation']['counts'], str) and ring['area'] == 12
