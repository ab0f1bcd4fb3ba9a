"""TRIS's choice of a response map (Liu et al., 2023) against its published code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.evaluation.localization import ReferringLocalization
from nemo_mmseg.models.protocols.prms import PRMS
from nemo_mmseg.pseudo_labels.response_maps import resize_response

from .common import Case, Comparison, relative
from .small import Small

CASES = ('tris_prms',)
NAMES = '../tris_stage1/aux_clip_vitb32_names.json'
SMALL = Small(names={'case.npz': NAMES})
IGNORED = {
    'seed': 'of the weights, which the names are filled with',
    'objects': 'how many there are',
    'names': 'of the published files, one for each map',
    'f64/meters': 'equal to those of float32',
    **{f'obj{number}/image_id': 'part of the name of a file' for number in range(5)},
}
SIZE = (320, 320)


def build_clip(case: Case, dtype: torch.dtype) -> PRMS:
    """The selection with the published CLIP's weights."""
    selection = PRMS('ViT-B-32-quickgelu', max_tokens=20).to(dtype)
    selection.clip.network.load_state_dict(case.weights())
    return selection


def check_object(
    case: Case, key: str, selection: PRMS, dtype: torch.dtype
) -> Iterator[Comparison | SegDataSample]:
    """Cosines, choice and map of one object; also yields the sample that it is evaluated as."""
    bits = 'f64/' if dtype == torch.float64 else ''
    texts = case[f'{key}/texts'].tolist()
    scores = case.tensor(f'{key}/maps_10x10').to(dtype)
    image = case.fill.make_image(1, *SIZE, seed=int(case[f'{key}/image_seed'])).to(dtype)
    index, everyone = torch.zeros(len(texts), dtype=torch.long), list(range(len(texts)))
    ids = selection.clip.tokenize(texts)[:, :20]
    yield Comparison(f'{key} token ids', float((ids != case.tensor(f'{key}/token_ids')).sum()), 0)

    seen = selection.encode_masked(scores, image, index)
    cosines = seen @ selection.encode_text(texts).T
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    for name, ours in dict(cosines=cosines, scores=cosines.sum(1)).items():
        difference = (ours - case.tensor(f'{bits}{key}/{name}')).abs().max()
        yield Comparison(f'{bits}{key} {name}', float(difference), tolerance)
    selected = selection(scores, image, index, texts, [everyone])
    yield Comparison(f'{key} chosen', abs(selected.chosen[0] - int(case[f'{key}/chosen'])), 0)

    shape = tuple(case[f'{key}/ori_hw'].tolist())
    response = resize_response(selected.scores, SIZE, shape)[0]
    if not bits and f'{key}/saved_map' in case:
        difference = relative(response, case[f'{key}/saved_map'])
        yield Comparison(f'{key} map', difference, 1e-5)
    for part in ('shape', 'mean', 'std', 'head', 'sample'):
        case[f'{key}/saved_map_stats/{part}']
    yield from case.compare(f'{bits}{key}/saved_map_stats', response, 1e-5)
    yield sample_of(case, key, response, len(texts))


def sample_of(case: Case, key: str, response: Tensor, count: int) -> SegDataSample:
    """All expressions of an object with its one map; the target is a part of the image."""
    height, width = response.shape
    gt = np.zeros((count, height, width), np.uint8)
    y, x = np.arange(height)[:, None], np.arange(width)
    inside = (y > 0.3 * height) & (y < 0.8 * height) & (x > 0.2 * width) & (x < 0.6 * width)
    gt[:, inside] = 1
    sample = SegDataSample(metainfo=dict(img_path=key, ori_shape=(height, width)))
    sample.set_metainfo(dict(gt_bboxes=[case[f'{key}/box_xyxy'][None]] * count))
    maps = response[None].expand(count, -1, -1)
    sample.seg_logits, sample.pred_sem_seg = PixelData(data=maps), PixelData(data=maps > 1e-9)
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(gt))
    return sample


def check_meters(case: Case, samples: list[SegDataSample]) -> Iterator[Comparison]:
    """The totals, with the published weights: of oIoU they are the squares of the numbers."""
    metric = ReferringLocalization()
    metric.process(None, [sample.to_dict() for sample in samples])
    totals = metric.compute_metrics(metric.results)
    weights = np.concatenate([[len(one.gt_bboxes)] * len(one.gt_bboxes) for one in samples])
    overall = (weights * metric.scores.intersection).sum() / (weights * metric.scores.union).sum()
    ours = 100 * overall, totals['mIoU'], totals['PointIt']
    for name, value, theirs in zip(('oIoU', 'mIoU', 'PointIt'), ours, case[METERS]):
        yield Comparison(f'meter {name}', abs(value - float(theirs)), 1e-5)


METERS = 'meters/overall_iou_miou_hit'


def check_prms(folder: Path, dtypes=(torch.float32, torch.float64)) -> Iterator[Comparison]:
    """All objects, in float32 and float64."""
    # The small copy has the names beside it.
    names = NAMES if (folder / NAMES).is_file() else Path(NAMES).name
    case = Case(folder, names=names)
    for dtype in dtypes:
        selection, samples = build_clip(case, dtype), []
        for number in range(int(case['objects'])):
            for found in check_object(case, f'obj{number}', selection, dtype):
                if isinstance(found, SegDataSample):
                    samples.append(found)
                else:
                    yield found
        yield from check_meters(case, samples)
    if len(dtypes) > 1:
        yield from case.all_read(IGNORED)


CHECKS = {'prms': check_prms}
