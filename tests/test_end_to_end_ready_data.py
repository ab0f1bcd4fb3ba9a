"""Whole evaluations on clean labels, on R-RefCOCO's form and on Ref-ZOM's, with small networks."""

import json
import pickle

import pytest
from parquet_files import REFCOCO_M, refcoco_m_row, sample, write
from small_runs import SIZE, runner_of, small_config

from nemo_mmseg.datasets.segmentation import encode_segmentation

pytestmark = pytest.mark.slow
CRIS = 'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'
RELA = 'rela_refshapes-clip_1xb8-300i_grefshapes-256x256'


def tables(folder):
    """References, images and annotations of a variant of RefShapes."""
    content = json.loads((folder / 'instances.json').read_text())
    by_id = [{one['id']: one for one in content[key]} for key in ('images', 'annotations')]
    return pickle.loads((folder / 'refs(unc).p').read_bytes()), *by_id


def evaluated(cfg, tmp_path):
    return runner_of(cfg, tmp_path / 'run').test()


def write_overlay(refshapes, path):
    """RefCOCO-M of every second reference of val, with the masks that the references have."""
    refs, images, annotations = tables(refshapes / 'refshapes+')
    rows = {}
    for ref in [ref for ref in refs if ref['split'] == 'val'][::2]:
        image, annotation = images[ref['image_id']], annotations[ref['ann_id']]
        rle = encode_segmentation(annotation['segmentation'], image['height'], image['width'])
        counts = rle['counts'] if isinstance(rle['counts'], str) else rle['counts'].decode()
        mask = dict(size=[int(side) for side in rle['size']], counts=counts)
        sentences = [sentence['raw'] for sentence in ref['sentences']]
        row = refcoco_m_row(b'not read', image['id'], image['file_name'], [])
        found = sample(ref['ref_id'], image['id'], sentences, mask, annotation['bbox'])
        rows.setdefault(image['id'], row)['samples'].append(found)
    write(path, list(rows.values()), REFCOCO_M)
    return refs


def test_one_evaluation_measures_all_reviewed_and_cleaned_ground_truth(refshapes, tmp_path):
    refs = write_overlay(refshapes, tmp_path / 'm' / 'val.parquet')
    ids = [s['sent_id'] for ref in refs if ref['split'] == 'val' for s in ref['sentences']]
    reviewed = tmp_path / 'reviewed.json'
    reviewed.write_text(json.dumps({str(number): number % 3 > 0 for number in ids}))
    cfg = small_config(CRIS, refshapes, tmp_path)
    cfg.model.test_cfg = dict(protocol=dict(type='LAVTProtocol', size=SIZE))
    cfg.test_evaluator = dict(type='CleanReferringIoU')
    cfg.test_dataloader.dataset.update(gt_overlay=str(tmp_path / 'm'), reviewed=str(reviewed))
    metrics = evaluated(cfg, tmp_path)
    assert metrics['expressions'] == len(ids)
    assert metrics['reviewed/expressions'] == sum(number % 3 > 0 for number in ids)
    assert 0 < metrics['clean/expressions'] < len(ids)
    for key in ('oIoU', 'mIoU', 'Pr@0.5'):  # the overlay has the same masks here
        assert metrics[f'clean/{key}'] == metrics[f'cleanable/{key}']


def test_a_network_with_a_no_target_score_is_measured_on_r_refcoco_and_ref_zom(refshapes, tmp_path):
    folder = tmp_path / 'data' / 'refshapes+'
    folder.mkdir(parents=True)
    refs, *_ = tables(refshapes / 'refshapes+')
    false = 0
    for number, ref in enumerate(refs):
        ref['source'] = 'zero' if number % 2 else 'one'
        for place, sentence in enumerate(ref['sentences']):
            sentence['exist'] = place > 0
            false += ref['split'] == 'val' and place == 0
    (folder / 'refs(unc).p').write_bytes(pickle.dumps(refs))
    (folder / 'instances.json').symlink_to(refshapes / 'refshapes+' / 'instances.json')
    (folder.parent / 'train2014').symlink_to(refshapes / 'train2014')
    files = dict(ann_file='refshapes+/instances.json', split_file='refshapes+/refs(unc).p')
    for kind, metric, keys in (
        ('RRefCOCODataset', 'RobustReferringIoU', {'r', 'rIoU', 'Pr@0.5_published'}),
        ('RefZOMDataset', 'RefZOMIoU', {'Acc'}),
    ):
        cfg = small_config(RELA, folder.parent, tmp_path)
        cfg.test_evaluator = dict(type=metric)
        cfg.test_dataloader.dataset.update(type=kind, **files)
        metrics = evaluated(cfg, tmp_path)
        assert keys <= set(metrics) and all(0 <= metrics[key] <= 100 for key in keys)
    assert false > 0
