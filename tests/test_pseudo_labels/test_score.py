"""Scores of maps and masks on their own split, counted by hand."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from pycocotools import mask as coco_mask
from small_runs import CONFIGS

from nemo_mmseg.datasets.transforms.loading import referent_masks
from nemo_mmseg.pseudo_labels.response_maps import ResponseMap, ResponseMaps, write_response_maps
from nemo_mmseg.pseudo_labels.score import score_pseudo_masks, score_response_maps

NAME = 'tris-stage1_refshapes-clip_1xb16-4e_refshapes-plus-256x256.py'


@pytest.fixture
def dataset(refshapes):
    cfg = Config.fromfile(CONFIGS / NAME).test_dataloader.dataset
    cfg.update(data_root=f'{refshapes}/', split='val', pipeline=[])
    return DATASETS.build(cfg)


def per_expression(dataset, guess):
    """Intersection, union of each expression; guess(item, place, gt_mask) is a mask."""
    counts = []
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        for place, gt in enumerate(referent_masks(item) > 0):
            mask = guess(item, place, gt)
            counts.append((np.logical_and(mask, gt).sum(), np.logical_or(mask, gt).sum()))
    return np.array(counts, float).T


def test_masks(dataset, tmp_path):
    """Left halves of the objects; that of the first annotation is missing."""
    halves, annotations = {}, []
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        for place, gt in enumerate(referent_masks(item) > 0):
            ann_id = item['instances'][item['targets'][place][0]]['ann_id']
            if ann_id in halves:
                continue
            half = gt.copy()
            half[:, int(np.median(np.nonzero(gt)[1])) :] = False
            halves[ann_id] = half if halves else np.zeros_like(gt)
            if len(halves) > 1:
                rle = coco_mask.encode(np.asfortranarray(half.astype(np.uint8)))
                segmentation = dict(size=rle['size'], counts=rle['counts'].decode())
                annotations.append(dict(id=ann_id, segmentation=segmentation))
    file = tmp_path / 'instances.json'
    file.write_text(json.dumps(dict(annotations=annotations)))

    def half(item, place, gt):
        return halves[item['instances'][item['targets'][place][0]]['ann_id']]

    inside, union = per_expression(dataset, half)
    found = score_pseudo_masks(dataset, str(file))
    assert found == pytest.approx(
        {
            'oIoU': 100 * inside.sum() / union.sum(),
            'mIoU': 100 * (inside / union).mean(),
            'Pr@0.5': 100 * (inside / union >= 0.5).mean(),
        }
    )
    assert 20 < found['mIoU'] < 55


def test_maps(dataset, tmp_path):
    """Maps that respond in the upper left quarter, most at the corner; the last is missing."""
    scores = np.full((4, 4), -1.0, np.float32)
    scores[:2, :2], scores[0, 0] = 0.5, 1.0
    ref_ids = sorted({r for i in range(len(dataset)) for r in dataset.get_data_info(i)['ref_ids']})
    records = [ResponseMap(ref_id, -1, scores, (64, 64)) for ref_id in ref_ids[:-1]]
    write_response_maps(tmp_path / 'maps', records, {})
    maps = ResponseMaps(tmp_path / 'maps')

    def quarter(item, place, gt):
        known = item['ref_ids'][place] in ref_ids[:-1]
        return known and maps.response(item['ref_ids'][place], gt.shape) > 0.4

    inside, union = per_expression(dataset, quarter)
    corner, _ = per_expression(
        dataset, lambda item, place, gt: np.arange(gt.size).reshape(gt.shape) == 0
    )
    found = score_response_maps(dataset, maps, threshold=0.4)
    assert found['oIoU'] == pytest.approx(100 * inside.sum() / union.sum())
    assert found['mIoU'] == pytest.approx(100 * (inside / union).mean())
    assert found['PointM'] == pytest.approx(100 * corner.mean())
