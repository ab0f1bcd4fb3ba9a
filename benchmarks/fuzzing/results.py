"""Written results and the settings of RefShapes: mutated, and read back by the tools."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .annotations import image_folder, tables
from .judge import Case, Kind
from .mutate import change_structure, dumps, other_bytes

FIELDS = (
    'sent_id', 'ref_id', 'image_id', 'image', 'expression', 'num_distractors', 'intersection',
    'union', 'target_area', 'rle', 'area', 'bbox', 'score', 'predictions', 'tie', 'empty_union',
    'no_target', 'predicted_no_target', 'no_target_rule', 'size', 'counts',
)  # fmt: skip


def predictions(generalized: bool) -> dict:
    """Return what ``tools/test.py --out`` writes."""
    rng, records = np.random.default_rng(4), []
    for ref in tables()[0]:
        for sentence in ref['sentences']:
            mask = np.zeros((24, 36), np.uint8, order='F')
            mask[3 : 5 + int(rng.integers(9)), 4:20] = 1
            code = coco_mask.encode(mask)
            inner, union = sorted(rng.integers(0, 300, 2).tolist())
            record = dict(
                sent_id=sentence['sent_id'], ref_id=ref['ref_id'], image_id=ref['image_id'],
                image=f'images/image_{ref["image_id"]}.png', expression=sentence['sent'],
                num_distractors=int(rng.integers(3)), intersection=inner, union=union,
                iou=inner / union if union else 1.0, target_area=float(rng.uniform(0.01, 0.5)),
                mask=f'masks/{sentence["sent_id"]}.png', area=int(mask.sum()), bbox=[4, 3, 16, 5],
                rle=dict(size=[24, 36], counts=code['counts'].decode()),
                score=float(rng.uniform(0.5, 1)),
            )  # fmt: skip
            if generalized:
                record.update(
                    no_target=len(records) % 5 == 0, predicted_no_target=len(records) % 4 == 0
                )
                if record['no_target'] or record['predicted_no_target']:
                    record['intersection'] = 0
                if record['no_target'] and record['predicted_no_target']:
                    record['union'] = 0
            records.append(record)
    rule = dict(no_target='area', min_pixels=50, score_threshold=0.0) if generalized else None
    return dict(dataset='mini', num_expressions=len(records), empty_union=1.0, tie='>=',
                no_target_rule=rule, predictions=records)  # fmt: skip


def truth(content: Any) -> dict[str, float] | str:
    """Measure anew what a file says; in words what is wrong with it.

    Only the two main measures are computed here, from intersections and unions.
    """
    if not isinstance(content, dict) or not isinstance(content.get('predictions'), list):
        return 'no predictions'
    records = content['predictions']
    if content.get('tie') not in ('>=', '>') or 'no_target_rule' not in content:
        return 'tie or no_target_rule'
    empty = content.get('empty_union')
    if type(empty) not in (int, float) or not 0 <= empty <= 1:
        return 'empty_union'
    inner, unions, ious = 0, 0, []
    generalized = content['no_target_rule'] is not None
    for record in records:
        if not isinstance(record, dict):
            return 'a record is no dict'
        pair = record.get('intersection'), record.get('union')
        if any(type(one) is not int or not 0 <= one < 2**40 for one in pair) or pair[0] > pair[1]:
            return f'intersection and union {str(pair)[:50]}'
        area = record.get('target_area')
        if type(area) not in (int, float) or not 0 <= area <= 1:
            return 'target_area'
        for key in ('sent_id', 'num_distractors'):
            value = record.get(key)
            if value is not None and (type(value) is not int or not -(2**63) <= value < 2**63):
                return key
        flags = record.get('no_target'), record.get('predicted_no_target')
        if any(one not in (None, 0, 1) for one in flags):
            return 'no_target'
        if record.get('image') is not None and not isinstance(record['image'], str):
            return 'image'
        first = 0 if any(flags) else pair[0]
        second = 0 if all(flags) else pair[1]
        inner, unions = inner + first, unions + second
        value = empty if not generalized else float(all(map(bool, flags)))
        ious.append(first / second if second else value)
    overall = (
        100 * inner / unions if unions else (100 * empty if not generalized and ious else math.nan)
    )
    mean = 100 * sum(ious) / len(ious) if ious else math.nan
    return {'cIoU': overall, 'gIoU': mean} if generalized else {'oIoU': overall, 'mIoU': mean}


def measure(path: Path) -> dict[str, float]:
    """Read results and measure them, as comparisons do."""
    from nemo_mmseg.evaluation.scores import ExpressionScores

    scores = ExpressionScores.read(path)
    assert scores.num_images <= len(scores)
    return scores.summary()


def _changed(folder: Path, rng: random.Random, generalized: bool) -> tuple[Path, bytes, str]:
    content = predictions(generalized)
    if rng.random() < 0.4:
        written, what = other_bytes(dumps(content), rng)
    else:
        changed, what, _ = change_structure(content, rng, True, FIELDS)
        written = dumps(changed)
    path = folder / 'predictions.json'
    path.write_bytes(written)
    return path, written, what


def _results(folder: Path, rng: random.Random, seed: int) -> Case:
    path, written, what = _changed(folder, rng, seed % 2 == 1)

    def wrong(found: dict[str, float]) -> str | None:
        try:
            wanted = truth(json.loads(written))
        except (ValueError, RecursionError) as error:
            return f'read, but no JSON: {error}'
        if isinstance(wanted, str):
            return f'read, but {wanted}'
        for key, value in wanted.items():
            if not math.isclose(found[key], value, abs_tol=1e-9) and not math.isnan(value):
                return f'{key} is {found[key]}, not {value}'
        return None

    return Case(what, partial(measure, path), wrong, (str(path),))


def _pseudo_labels(folder: Path, rng: random.Random, seed: int) -> Case:
    """The predictions of a run as annotations, from a changed file and a sound one."""
    split_file, out = folder / 'refs(unc).p', folder / 'made'
    refs: Any = tables()[0]
    if rng.random() < 0.5:
        path, _, what = _changed(folder, rng, False)
    else:
        path = folder / 'predictions.json'
        path.write_bytes(dumps(predictions(False)))
        fields = ('ref_id', 'ann_id', 'sent_ids', 'category_id')
        try:
            refs, what, _ = change_structure(refs, rng, False, fields)
            pickle.dumps(refs, protocol=2)
        except (RecursionError, ValueError):
            refs, what = tables()[0], 'unchanged'
    split_file.write_bytes(pickle.dumps(refs, protocol=2))

    def use() -> list:
        from nemo_mmseg.pseudo_labels.predictions import predictions_to_refcoco

        predictions_to_refcoco(str(folder), str(split_file), str(out))
        from mmseg.registry import DATASETS

        dataset = DATASETS.build(
            dict(type='RefCOCODataset', data_root=str(out), ann_file='instances.json',
                 split_file='refs(unc).p', split='train', data_prefix=dict(img_path=image_folder()),
                 pipeline=[dict(type='LoadReferringImage'), dict(type='LoadReferentMask')])
        )  # fmt: skip
        return [dataset[i]['gt_seg_map'].max() for i in range(len(dataset))]

    def wrong(found: list) -> str | None:
        return None if all(one == 1 for one in found) else f'masks with {found}'

    return Case(what, use, wrong, (str(folder), image_folder()))


@cache
def _shapes() -> Path:
    import atexit

    from nemo_mmseg.refshapes import make_refshapes

    folder, process = Path(tempfile.mkdtemp(prefix='fuzz-shapes-')), os.getpid()
    atexit.register(lambda: os.getpid() == process and shutil.rmtree(folder))
    make_refshapes(folder, 'refshapes', dict(train=2), seed=5, workers=1)
    return folder


def _settings(folder: Path, rng: random.Random, seed: int) -> Case:
    from nemo_mmseg.refshapes import make_refshapes

    made, out = _shapes(), folder / 'made'
    shutil.copytree(made, out)
    path = out / 'refshapes' / 'settings.json'
    before = path.read_bytes()
    if rng.random() < 0.5:
        content, what = other_bytes(before, rng)
    else:
        changed, what, _ = change_structure(json.loads(before), rng, True)
        content = dumps(changed)
    path.write_bytes(content)

    def wrong(written: bool) -> str | None:
        if written:
            return 'data that are there are written again'
        there, asked = json.loads(content), json.loads(before)
        return None if {k: there.get(k) for k in asked} == asked else 'other settings pass'

    use = partial(make_refshapes, out, 'refshapes', dict(train=2), seed=5, workers=1)
    return Case(what, use, wrong, (str(out),))


KINDS = [
    Kind('predictions', 90, _results),
    Kind('pseudo-labels', 70, _pseudo_labels),
    Kind('refshapes-settings', 30, _settings, lambda: _shapes()),
]
