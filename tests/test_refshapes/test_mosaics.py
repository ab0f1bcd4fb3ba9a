"""What the scene graphs say of mosaics: of their negatives, and of the cells for position words."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmseg.registry import DATASETS
from nemo_helpers import mosaic_config, write_bank
from refshapes_truth.group_truth import targets_of
from refshapes_truth.mosaic_truth import mosaic_truth
from refshapes_truth.scenes import thing

from nemo_mmseg.refshapes import make_sample
from nemo_mmseg.utils.position_words import position_cells


def write_scenes(mini, objects: dict[int, list[dict]]) -> Path:
    """Scene graphs of a hand-made data set, whose images get COCO's names."""
    for image in mini.instances['images']:
        image['file_name'] = f'COCO_train2014_{image["id"]:012d}.jpg'
    mini.write()
    scenes = {str(i): dict(width=64, height=48, objects=o) for i, o in objects.items()}
    (mini.root / 'mini' / 'scenes.json').write_text(json.dumps(dict(scenes=scenes)))
    return mini.root / 'bank.safetensors'


def truth_of(mini, path: Path, items: int, num: int, similarities: list[float], **band) -> dict:
    """The truth about mosaics of the first items: of two cells, all of them mined."""
    mosaic = mosaic_config(mined=1.0, cells=(1, 2), bank=dict(path=str(path)), **band)
    dataset = DATASETS.build(
        mini.config([dict(type='SampleExpressions'), mosaic], check_images=False)
    )
    own, stored = np.full(len(dataset.expressions()[0]), 0.8), len(dataset.pool) - 1
    write_bank(dataset, path, similarities, own, stored=stored)
    dataset.get_subset_(items)
    return mosaic_truth(dataset, dataset.pipeline.transforms[1], num)


def test_shares_of_a_hand_made_case(mini):
    """ "red star" of image 1; the band holds image 2 (a blue star) and 3 (a red one).

    Image 4 shows a circle. A mosaic has one negative, each as often as the other. So half of the
    mosaics show a second red star, all negatives show a star, as do three of four images.
    """
    mini.refs = [dict(ref, sentences=ref['sentences'][:1]) for ref in mini.refs[:4]]
    mini.refs[0]['sentences'][0]['sent'] = 'red star'
    path = write_scenes(
        mini,
        {
            1: [thing('star', 'red', ann_id=101)],
            2: [thing('star', 'blue', ann_id=102)],
            3: [thing('star', 'red', ann_id=103)],
            4: [thing('circle', 'red', ann_id=104)],
        },
    )
    truth = truth_of(
        mini, path, 1, 400, [0.8, 0.5, 0.4, 0.3], tau=0.9, tau_mode='absolute', top_k=2
    )
    assert truth['mined_share'] == 1
    assert truth['also_true'] == pytest.approx(0.5, abs=0.08)
    assert truth['category_mined'] == 1
    assert truth['category_random'] == pytest.approx(0.75)
    assert truth['category_ratio'] == pytest.approx(4 / 3)


def test_no_target_expressions_have_no_category(gref_mini):
    """ "blue star" of nothing in image 1, "red things" of both of its objects.

    The only negative, image 2, shows a blue star: it makes the first untrue. It shows a category of
    the second (star, circle), as do both images of the pool.
    """
    no_target, both = gref_mini.refs[2], gref_mini.refs[1]
    no_target['sentences'][0]['sent'] = 'blue star'
    both['sentences'] = [dict(both['sentences'][0], sent='red things')]
    gref_mini.refs = [no_target, both, gref_mini.refs[3]]
    path = write_scenes(
        gref_mini,
        {
            1: [thing('star', 'red', ann_id=101), thing('circle', 'red', ann_id=201)],
            2: [thing('star', 'blue', ann_id=102)],
        },
    )
    truth = truth_of(gref_mini, path, 2, 20, [0.5], top_k=2)
    assert truth['mined_share'] == 1
    assert truth['also_true'] == 0.5
    assert truth['category_mined'] == truth['category_random'] == 1


def mosaic_scene(scenes, rows, columns):
    """The objects of a mosaic of scenes, each stretched to a cell, with the number of the cell."""
    width, height = max(s.width for s in scenes), max(s.height for s in scenes)
    objects = []
    for cell, scene in enumerate(scenes):
        size = np.array([width / scene.width, height / scene.height])
        origin = np.array([cell % columns * width, cell // columns * height])
        for number, one in enumerate(scene.objects):
            center = (one.center * size + origin).tolist()
            made = dict(center=center, area=one.area * size.prod(), cell=cell, number=number)
            objects.append(dict(one.to_dict(), **made))
    return objects, columns * width, rows * height


@pytest.mark.parametrize('grid', [(2, 2), (3, 3)])
def test_allowed_cells_keep_expressions_true_of_their_targets(grid):
    """Every other cell shows an object of the target's category, as mined negatives do."""
    samples = [make_sample(0, 'refshapes', 'train', index) for index in range(100)]
    shown = [{one.category for one in sample.scene.objects} for sample in samples]
    rng, every = np.random.default_rng(0), set(range(grid[0] * grid[1]))
    true = {True: [], False: []}
    for image, sample in enumerate(samples):
        for (target,), expressions in sample.references:
            category = sample.scene.objects[target].category
            others = [i for i in range(100) if i != image and category in shown[i]]
            for text, _ in expressions:
                allowed = position_cells(text, *grid)
                if len(allowed) == len(every):
                    continue
                for right in (True, False):
                    cell = int(rng.choice(sorted(allowed if right else every - allowed)))
                    images = rng.choice(others, len(every) - 1).tolist()
                    images.insert(cell, image)
                    scene = mosaic_scene([samples[i].scene for i in images], *grid)
                    described = [scene[0][i] for i in targets_of(text, *scene)]
                    true[right].append(
                        any(o['cell'] == cell and o['number'] == target for o in described)
                    )
    assert len(true[True]) > 200
    right, wrong = np.mean(true[True]), np.mean(true[False])
    # Images beside the target's in its row or column can still come before it.
    assert right > 0.8 and wrong < 0.55 and right - wrong > 0.3, (right, wrong)
