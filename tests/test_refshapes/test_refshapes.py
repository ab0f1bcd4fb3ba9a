"""RefShapes: layout, determinism and the statistics that make it a hard stand-in."""

import hashlib
import json
import pickle
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nemo_mmseg.refshapes.sample import make_sample
from nemo_mmseg.refshapes.scene import MIN_VISIBLE
from nemo_mmseg.refshapes.segment import to_coco
from nemo_mmseg.refshapes.vocabulary import count_appearances
from nemo_mmseg.refshapes.write import make_refshapes

FLAVOURS = ('refshapes', 'refshapes+', 'refshapesg')  # of one target an expression
SIZES = {'train': 40, 'val': 60, 'testA': 20, 'testB': 20}


class PlainUnpickler(pickle.Unpickler):
    """Refuses everything that is not a plain container, string or number."""

    def find_class(self, module, name):
        raise AssertionError(f'the pickle asks for {module}.{name}')


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def load(folder: Path, flavour: str):
    with open(folder / flavour / 'refs(unc).p', 'rb') as file:
        refs = PlainUnpickler(file).load()
    instances = json.loads((folder / flavour / 'instances.json').read_text())
    return refs, instances


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('refshapes')
    for flavour in FLAVOURS:
        assert make_refshapes(folder, flavour, SIZES, seed=11, workers=2)
    return folder


def test_same_bytes_for_any_number_of_workers(made, tmp_path):
    make_refshapes(tmp_path, 'refshapes+', SIZES, seed=11, workers=1)
    alone, together = digest(tmp_path), digest(made)
    assert alone == {k: together[k] for k in alone}
    assert len(alone) == sum(SIZES.values()) + 4


# Of seed 5, four images of train and two of each other split.
PINNED = {
    'refshapes': ('2ba5d5b36dc9c475', '455c1bd7164e97ce'),
    'refshapes+': ('d15a35eef4489f18', '2b37e22480cf38aa'),
    'refshapesg': ('b1bb68be89bbb159', 'e4970a78d5d78f1d'),
}


@pytest.mark.skipif(cv2.__version__[:2] != '5.', reason='OpenCV 4 draws some edges otherwise')
@pytest.mark.parametrize('flavour', FLAVOURS)
def test_the_data_of_a_seed_never_changes(flavour, tmp_path):
    sizes = {'train': 4, 'val': 2, 'testA': 2, 'testB': 2}
    make_refshapes(tmp_path, flavour, sizes, seed=5, workers=1)

    def pin(paths):
        found = hashlib.sha256()
        for path in sorted(paths):
            found.update(path.name.encode() + path.read_bytes())
        return found.hexdigest()[:16]

    names = ('refs(unc).p', 'instances.json', 'scenes.json')
    assert pin([tmp_path / flavour / name for name in names]) == PINNED[flavour][0]
    assert pin((tmp_path / 'train2014').iterdir()) == PINNED[flavour][1]


def test_other_seed_other_data(made, tmp_path):
    make_refshapes(tmp_path, 'refshapes+', {'train': 3}, seed=12, workers=1)
    here, there = digest(tmp_path), digest(made)
    images = [k for k in here if k.endswith('.jpg')]
    assert len(images) == 3 and all(here[k] != there[k] for k in images)


def test_a_sample_does_not_depend_on_others(made):
    one, two = make_sample(3, 'refshapes', 'val', 5), make_sample(3, 'refshapes', 'val', 5)
    assert np.array_equal(one.scene.image, two.scene.image)
    assert one.references == two.references


def test_second_call_does_nothing_and_other_settings_are_refused(made):
    before = digest(made)
    assert not make_refshapes(made, 'refshapes', SIZES, seed=11)
    with pytest.raises(FileExistsError, match='seed: 11 there, 12 asked'):
        make_refshapes(made, 'refshapes', SIZES, seed=12)
    with pytest.raises(FileExistsError, match='sizes'):
        make_refshapes(made, 'refshapes', {**SIZES, 'val': 61}, seed=11)
    assert digest(made) == before


@pytest.mark.parametrize(
    'wrong',
    [dict(flavour='refcoco'), dict(sizes={'test': 1}), dict(sizes={'val': -1}), dict(seed=-1)],
)
def test_bad_settings(tmp_path, wrong):
    with pytest.raises(ValueError):
        make_refshapes(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_layout(made, flavour):
    refs, instances = load(made, flavour)
    images = {i['id']: i for i in instances['images']}
    annotations = {a['id']: a for a in instances['annotations']}
    categories = {c['id'] for c in instances['categories']}
    assert len(images) == sum(SIZES.values()) == len(instances['images'])
    assert len(annotations) == len(instances['annotations'])
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
        annotation = annotations[ref['ann_id']]
        assert annotation['image_id'] == ref['image_id']
        assert annotation['category_id'] == ref['category_id']
        assert ref['sent_ids'] == [s['sent_id'] for s in ref['sentences']]
        assert len({s['sent'] for s in ref['sentences']}) == 3
        assert all(s['tokens'] == s['sent'].split() for s in ref['sentences'])
        stem = images[ref['image_id']]['file_name'].removesuffix('.jpg')
        assert ref['file_name'] == f'{stem}_{ref["ann_id"]}.jpg'


def test_flavours_share_a_folder_but_no_image(made):
    ids = [{i['id'] for i in load(made, f)[1]['images']} for f in FLAVOURS]
    assert not ids[0] & ids[1] and not ids[1] & ids[2] and not ids[0] & ids[2]


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_statistics(made, flavour):
    refs, instances = load(made, flavour)
    by_image: dict[int, list] = {}
    for annotation in instances['annotations']:
        by_image.setdefault(annotation['image_id'], []).append(annotation)
    counts = [len(v) for v in by_image.values()]
    assert min(counts) >= 2 and max(counts) <= 9 and len(set(counts)) == 8
    size = {i['id']: i['width'] * i['height'] for i in instances['images']}
    shares = [a['area'] / size[a['image_id']] for a in instances['annotations']]
    assert np.median(shares) <= 0.03
    assert np.mean(np.array(shares) > 0.010) > 0.95 and max(shares) < 0.06

    def rivals(ref):
        same = [a['category_id'] for a in by_image[ref['image_id']]]
        return same.count(ref['category_id']) - 1

    split = {s: [rivals(r) for r in refs if r['split'] == s] for s in SIZES}
    assert np.mean(np.array(split['val']) > 0) >= 0.6
    assert max(split['testA']) <= 1
    assert min(split['testB']) >= 3
    assert {0, 1, 2} <= set(split['train'])
    assert 2 <= len(split['train']) / SIZES['train'] <= 3.5


def test_a_thousand_appearances():
    assert count_appearances() >= 1000
    # ... and they are used: what a few hundred objects look like hardly repeats.
    looks = Counter()
    for index in range(60):
        for obj in make_sample(5, 'refshapes+', 'train', index).scene.objects:
            looks[(obj.category, obj.colour, obj.texture, obj.second, obj.size)] += 1
    assert len(looks) > 0.75 * sum(looks.values())


def test_objects_overlap_but_stay_visible():
    overlaps = 0
    for index in range(60):
        scene = make_sample(5, 'refshapes', 'testB', index).scene
        assert not np.sum(scene.masks, 0).max() > 1
        for obj in scene.objects:
            assert obj.visible >= MIN_VISIBLE
            overlaps += bool(obj.covers)
    assert overlaps > 30


def test_segmentations_are_the_visible_parts(made):
    _, instances = load(made, 'refshapes')
    kinds = Counter()
    annotations = {a['id']: a for a in instances['annotations']}
    for index in range(SIZES['val']):
        scene = make_sample(11, 'refshapes', 'val', index).scene
        image = instances['images'][SIZES['train'] + index]
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
