"""Do expressions stay true in a mosaic? RefShapes' scene graphs and reader of sentences say so."""

import numpy as np
import pytest
from refshapes_truth.group_truth import targets_of
from refshapes_truth.mosaic_truth import load_scenes

from nemo_mmseg.refshapes.write import make_refshapes
from nemo_mmseg.utils.fileio import load_plain_pickle
from nemo_mmseg.utils.position_words import position_cells


@pytest.fixture(scope='module')
def split_file(tmp_path_factory):
    root = tmp_path_factory.mktemp('refshapes')
    make_refshapes(root, 'refshapes', dict(train=100), workers=1)
    return str(root / 'refshapes' / 'refs(unc).p')


def mosaic_scene(scenes, rows, columns):
    """The objects of a mosaic of scenes, each stretched to a cell, with the number of the cell."""
    width, height = (max(scene[key] for scene in scenes) for key in ('width', 'height'))
    objects = []
    for cell, scene in enumerate(scenes):
        size = np.array([width / scene['width'], height / scene['height']])
        origin = np.array([cell % columns * width, cell // columns * height])
        for thing in scene['objects']:
            box = np.array(thing['bbox'])
            moved = dict(
                center=(thing['center'] * size + origin).tolist(),
                bbox=[*(box[:2] * size + origin), *(box[2:] * size)],
                cell=cell,
            )
            objects.append({**thing, **moved})
    return objects, columns * width, rows * height


@pytest.mark.parametrize('grid', [(2, 2), (3, 3)])
def test_allowed_cells_keep_expressions_true_of_their_targets(split_file, grid):
    """Every other cell shows an object of the target's category, as mined negatives do."""
    scenes, _ = load_scenes(split_file)
    shown = {i: {thing['category'] for thing in scene['objects']} for i, scene in scenes.items()}
    rng, true = np.random.default_rng(0), {True: [], False: []}
    for ref in load_plain_pickle(split_file):
        target = next(
            thing
            for thing in scenes[ref['image_id']]['objects']
            if thing['ann_id'] == ref['ann_id']
        )
        others = [i for i in scenes if i != ref['image_id'] and target['category'] in shown[i]]
        for sentence in ref['sentences']:
            allowed = position_cells(sentence['sent'], *grid)
            if len(allowed) == grid[0] * grid[1]:
                continue
            for right in (True, False):
                every = set(range(grid[0] * grid[1]))
                cell = int(rng.choice(sorted(allowed if right else every - allowed)))
                ids = rng.choice(others, len(every) - 1).tolist()
                ids.insert(cell, ref['image_id'])
                objects, width, height = mosaic_scene([scenes[i] for i in ids], *grid)
                described = targets_of(sentence['sent'], objects, width, height)
                true[right].append(
                    any(
                        objects[i]['cell'] == cell and objects[i]['ann_id'] == ref['ann_id']
                        for i in described
                    )
                )
    assert len(true[True]) > 200
    right, wrong = np.mean(true[True]), np.mean(true[False])
    # Images beside the target's in its own row or column can still come before it.
    assert right > 0.8 and wrong < 0.55 and right - wrong > 0.3, (right, wrong)
