"""The metrics of TRIS (Liu et al., 2023) against its published evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmseg.structures import SegDataSample

from nemo_mmseg.evaluation.boxes import published_boxes
from nemo_mmseg.evaluation.localization import ReferringLocalization, first_maximum
from nemo_mmseg.models.protocols.tris import TRISProtocol
from nemo_mmseg.models.structures import HeadOutput

from .common import Case, Comparison
from .small import Small

CASES = ('tris_metrics',)
SMALL = Small(names={'refcoco.npz': None, 'referit.npz': None})
# What leaves the network is resized once more; negative maxima turn the sign as published.
PROTOCOL = TRISProtocol(response=False, flip_negative=True)
IGNORED = {
    'cases': 'how many there are',
    'cv2_version': 'the same boxes with all versions',
    'total/box_miou': 'compared as the mean of box_iou',
}


def samples_of(case: Case, prefix: str) -> Iterator[tuple[str, dict]]:
    """Data samples as TRIS's protocol leaves them, by the beginning of their keys."""
    count = sum(key.endswith('/net_out') for key in case.keys())
    for number in range(count):
        key = f'{prefix}{number}'
        shape = tuple(case[f'{key}/ori_hw'].tolist())
        maps = case.tensor(f'{key}/net_out')[None, None]
        sample = SegDataSample(metainfo=dict(ori_shape=shape))
        PROTOCOL(HeadOutput(maps), torch.zeros(3, *maps.shape[2:]), sample)
        gt = np.unpackbits(case[f'{key}/mask_packed'])[: shape[0] * shape[1]].reshape(1, *shape)
        yield (
            key,
            dict(
                img_path=str(case[f'{key}/name']),
                ori_shape=shape,
                seg_logits=dict(data=sample.seg_logits.data),
                pred_sem_seg=dict(data=sample.pred_sem_seg.data),
                gt_sem_seg=dict(data=torch.from_numpy(gt)),
                gt_bboxes=[case[f'{key}/boxes_xyxy']],
            ),
        )


def check(case: Case, prefix: str) -> Iterator[Comparison]:
    """Every expression of a file, and its totals."""
    # As published: an empty union counts 0. The golden data has none.
    metric = ReferringLocalization(empty_union=0.0)
    samples = list(samples_of(case, prefix))
    metric.process(None, [sample for _, sample in samples])
    totals = metric.compute_metrics(metric.results)
    scores = metric.scores
    ours = dict(
        I=scores.intersection,
        U=scores.union,
        iou=scores.iou,
        hit=scores.measures['PointIt'],
        hit_mask=scores.measures['PointM'],
        box_acc=scores.measures['Acc_box'],
        box_iou=scores.measures['box_mIoU'],
    )
    for name, values in ours.items():
        stored = np.array([case[f'{key}/{name}'] for key, _ in samples])
        tolerance = 1e-6 if name in ('iou', 'box_iou') else 0
        yield Comparison(name, float(np.abs(stored - values).max()), tolerance)
    places = np.array([place_differences(case, *one) for one in samples]).max(0)
    for name, difference, tolerance in zip(('point', 'boxes', 'confidence'), places, (0, 0, 1e-6)):
        yield Comparison(name, float(difference), tolerance)
    stored = dict(zip(('oIoU', 'mIoU', 'PointIt'), case['total/overall_iou_miou_pointit']))
    stored.update(PointM=case['total/pointm'], Acc_box=case['total/acc_box'])
    if 'total/precision_50_60_70_80_90' in case:
        names = (f'Pr@0.{tenths}' for tenths in range(5, 10))
        stored.update(zip(names, case['total/precision_50_60_70_80_90']))
    stored['box_mIoU'] = case['total/box_miou']
    for name, total in stored.items():
        yield Comparison(f'total {name}', abs(float(total) - totals[name]), 1e-6)
    yield from case.all_read(IGNORED)


def place_differences(case: Case, key: str, sample: dict) -> list[float]:
    """The largest differences of point, boxes and confidences of one expression."""
    point = first_maximum(sample['seg_logits']['data'])[0]
    boxes = published_boxes(sample['pred_sem_seg']['data'][0].numpy() > 0)
    stored = case[f'{key}/generated_boxes_xyxy_conf']
    point_difference = np.abs(point - case[f'{key}/argmax_yx']).max()
    if boxes.shape != stored.shape:
        return [point_difference, np.inf, np.inf]
    differences = np.abs(boxes - stored).max(0)
    return [point_difference, differences[:4].max(), differences[4]]


def check_refcoco(folder: Path) -> Iterator[Comparison]:
    """One box an expression."""
    yield from check(Case(folder, 'refcoco.npz'), 'case')


def check_referit(folder: Path) -> Iterator[Comparison]:
    """Several boxes an expression, and an image without any."""
    case = Case(folder, 'referit.npz')
    case['queries_per_image']
    yield from check(case, 'query')


CHECKS = {'refcoco': check_refcoco, 'referit': check_referit}
