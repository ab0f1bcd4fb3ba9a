"""Every metric and slice finds the same on the JSON form as on RefCOCO's layout."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, METRICS

from nemo_mmseg.datasets.conversion import refcoco_to_json
from nemo_mmseg.datasets.samplers import SampleIndex

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
BOXES = dict(type='LoadReferentBoxes')
PACK = dict(type='PackReferringInputs')
BY = ['distractors', 'length', 'area', 'position', 'size_word', 'distractors*length']


DOCS = Path(__file__).parents[2] / 'docs'


@pytest.mark.parametrize('page', sorted(DOCS.glob('**/*.md')), ids=lambda page: page.name)
def test_the_metrics_of_a_page_are_there(page):
    settings = re.findall(r'_evaluator`? (?:=|to) `?dict\([^)]*?type=\'(\w+)\'', page.read_text())
    assert [name for name in settings if METRICS.get(name) is None] == []


def predicted(sample):
    """What a network could say of each expression: parts of the ground truth, and specks."""
    gt, masks = sample.gt_sem_seg.data, []
    for sent_id, mask in zip(sample.sent_ids, gt.numpy()):
        rng = np.random.default_rng(sent_id)
        drawn = mask * (rng.random(mask.shape) < rng.random())
        masks.append(drawn | (rng.random(mask.shape) < 0.01 * rng.integers(2)))
    masks = torch.from_numpy(np.stack(masks).astype(np.uint8))
    sample.pred_sem_seg = PixelData(data=masks)
    sample.seg_logits = PixelData(data=masks.float() + 0.1 * gt)
    return sample.to_dict()


@pytest.mark.parametrize('variant, metric', [
    ('refshapes+', 'ReferringIoU'),
    ('refshapes+', 'ReferringLocalization'),
    ('grefshapes', 'GeneralizedReferringIoU'),
    ('grefshapes', 'RefZOMIoU'),
])  # fmt: skip
def test_scores_are_the_same(refshapes, tmp_path, variant, metric):
    kind, name = 'RefCOCODataset', 'refs(unc).p'
    if variant == 'grefshapes':
        kind, name = 'GRefCOCODataset', 'grefs(unc).json'
    folder, out = refshapes / variant, tmp_path / 'own.json'
    refcoco_to_json(str(folder / name), str(folder / 'instances.json'), str(out))
    pipeline = [*LOAD, *([BOXES] if metric == 'ReferringLocalization' else []), PACK]
    shared = dict(
        data_root=str(folder),
        split='val',
        data_prefix=dict(img_path=str(refshapes / 'train2014')),
        group_by='image',
        pipeline=pipeline,
    )
    found = []
    for dataset in (
        dict(shared, type=kind, ann_file='instances.json', split_file=name),
        dict(shared, type='ReferringJSONDataset', ann_file=str(out)),
    ):
        dataset = DATASETS.build(dataset)
        counted = METRICS.build(dict(type=metric, by=BY))
        for index in range(len(dataset)):
            counted.process(None, [predicted(dataset[SampleIndex(index)]['data_samples'])])
        found.append(counted.evaluate(len(dataset)))
    assert found[0].keys() == found[1].keys() and found[0]['expressions'] > 10
    for key, value in found[0].items():
        assert value == found[1][key] or math.isnan(value) and math.isnan(found[1][key]), key
    assert sum('distractors' in key for key in found[0]) > 4
    assert 0 < found[0].get('mIoU', found[0].get('gIoU')) < 100
