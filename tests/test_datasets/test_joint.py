"""Joint training sees no image that any of its data sets is tested on, and loses nothing else."""

import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from check_overlap import overlap_table
from mini_refcoco import HEIGHT, WIDTH, reference
from mmengine.config import Config
from mmseg.registry import DATASETS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
JOINT = sorted(CONFIGS.glob('[a-z]*/*refcoco-joint*.py'))
SPLITS = {
    'refcoco/refs(unc).p': ('train', 'train', 'train', 'val', 'testA', 'testB'),
    'refcoco+/refs(unc).p': ('train', 'train', 'train', 'val', 'testA', 'testB'),
    'refcocog/refs(umd).p': ('train', 'train', 'train', 'val', 'test'),
}
IMAGES = range(1, 41)


def image_name(number):
    return f'COCO_train2014_{number:012d}.jpg'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Three data sets on the same 40 images, each with splits of its own; the pickles by name."""
    root, rng, pickles = tmp_path_factory.mktemp('joint'), np.random.default_rng(3), {}
    images = root / 'coco' / 'train2014'
    images.mkdir(parents=True)
    for number in IMAGES:
        cv2.imwrite(str(images / image_name(number)), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    for split_file, splits in SPLITS.items():
        name = split_file.partition('/')[0]
        refs, annotations = [], []
        for number in rng.permutation(IMAGES)[:30].tolist():
            split = splits[rng.integers(len(splits))]
            for ann_id in (1000 + number, 2000 + number):
                texts = [f'{name} {ann_id} {i}' for i in range(rng.integers(1, 4))]
                ref = reference(ann_id, ann_id, number, texts, split)
                ref['file_name'] = f'{image_name(number)[:-4]}_{ann_id}.jpg'
                refs.append(ref)
                outline = dict(segmentation=[[4, 3, 24, 3, 24, 18, 4, 18]], bbox=[4, 3, 20, 15])
                more = dict(image_id=number, category_id=1, area=300, iscrowd=0)
                annotations.append(dict(id=ann_id, **outline, **more))
        size = dict(height=HEIGHT, width=WIDTH)
        content = dict(
            images=[dict(id=n, file_name=image_name(n), **size) for n in IMAGES],
            annotations=annotations,
            categories=[dict(id=1, name='box')],
        )
        (root / name).mkdir()
        (root / split_file).write_bytes(pickle.dumps(refs, protocol=2))
        (root / name / 'instances.json').write_text(json.dumps(content))
        pickles[split_file] = refs
    return root, pickles


def test_there_are_joint_configs_with_and_without_nemo():
    assert {path.parent.name for path in JOINT} == {'cris', 'lavt'}
    assert {'_nemo_' in path.name for path in JOINT} == {True, False}


@pytest.mark.parametrize('path', JOINT, ids=lambda path: path.stem)
def test_nothing_that_is_tested_on_is_trained_on_and_nothing_else_is_lost(path, files):
    root, pickles = files
    data = Config.fromfile(path).train_dataloader.dataset
    for part in data.datasets:
        part.data_root = part.leak_guard.data_root = f'{root}/'
        part.pipeline = []
    assert [part.split_file for part in data.datasets] == list(pickles)
    dataset = DATASETS.build(data)

    tested = {
        ref['image_id'] for refs in pickles.values() for ref in refs if ref['split'] != 'train'
    }
    lost = 0
    for inner, refs in zip(dataset.datasets, pickles.values(), strict=True):
        train = [ref for ref in refs if ref['split'] == 'train']
        expected = {
            s['sent_id']: (ref['image_id'], s['raw' if 'lavt' in path.name else 'sent'])
            for ref in train
            if ref['image_id'] not in tested
            for s in ref['sentences']
        }
        items = [inner.get_data_info(i) for i in range(len(inner))]
        found = [
            (sent_id, (item['img_id'], text))
            for item in items
            for sent_id, text in zip(item['sent_ids'], item['expressions'])
        ]
        assert len(found) == len(expected) and dict(found) == expected
        # negatives come from this pool: it has no tested image either
        assert set(inner.pool.ids.tolist()) == {image for image, _ in expected.values()}
        lost += sum(ref['image_id'] in tested for ref in train)
        assert any(ref['image_id'] not in tested for ref in train)
    assert lost >= 10, 'the data sets of this test share images'
    assert len(dataset) == sum(map(len, dataset.datasets))


def test_the_tool_counts_what_the_guard_leaves_out(files):
    root, pickles = files
    table = overlap_table([str(root / file) for file in SPLITS])
    columns = {name: i for i, name in enumerate(table.field_names)}
    column = columns['refcocog (umd) train']
    counted = {row[0]: row[column] for row in table.rows}
    train = {r['image_id'] for r in pickles['refcocog/refs(umd).p'] if r['split'] == 'train'}
    for file, refs in pickles.items():
        name = re.sub(r'/refs', ' ', file).removesuffix('.p')
        for split in {ref['split'] for ref in refs} - {'train'}:
            images = {ref['image_id'] for ref in refs if ref['split'] == split}
            assert counted[f'{name} {split}'] == len(train & images)
