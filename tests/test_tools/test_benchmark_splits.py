"""The paper's table: every split by every protocol, beside what was published."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from benchmark_splits import (
    PROTOCOLS,
    datasets_to_test,
    protocols_of,
    published_scores,
    runs_of,
    splits_of,
    table_of,
)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_runs import run_tool, runner_of, small_config

from nemo_mmseg.datasets.conversion import refcoco_to_json

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NAME = 'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'
METHOD = """
- Name: CRIS
  Configs: cris_*
  Published:
    cris_refshapes-clip: {refshapes-plus: mIoU 50.00 / 40.00 / 30.00 (without 1.00 / 2.00 / 3.00)}
"""


@pytest.fixture(scope='module')
def network(refshapes, tmp_path_factory):
    """The config and the checkpoint of a network that was not trained, with a ``method.yml``."""
    folder = tmp_path_factory.mktemp('network')
    cfg = small_config(NAME, refshapes, folder / 'none')
    cfg.dump(folder / f'{NAME}.py')
    (folder / 'method.yml').write_text(METHOD)
    runner = runner_of(cfg, folder / 'start')
    runner.model.init_weights()
    torch.save(dict(state_dict=runner.model.state_dict()), folder / 'weights.pth')
    return folder / f'{NAME}.py', folder / 'weights.pth'


@pytest.mark.slow
def test_every_split_is_measured_by_both_protocols(network, tmp_path, capsys):
    config, weights = network
    work_dir = ['--work-dir', tmp_path / 'run']
    run_tool('analysis_tools/benchmark_splits.py', config, weights, '--out', tmp_path, *work_dir)
    printed = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / 'benchmark.csv').open()))
    own, plain = 'OriginalProtocol(threshold=0.35)', 'OriginalProtocol'
    splits = ['val', 'testA', 'testB']
    assert {row['data'] for row in rows} == {'refshapes+/refs(unc).p'}
    assert [(row['protocol'], row['split']) for row in rows] == [
        (protocol, split) for protocol in (own, plain) for split in splits
    ]
    # what tools/test.py finds for the same
    for threshold, part in ((0.35, rows[:3]), (0.5, rows[3:])):
        out = tmp_path / str(threshold)
        options = [f'model.test_cfg.protocol.threshold={threshold}']
        options = ['--splits', *splits, '--out', out, '--cfg-options', *options]
        run_tool('test.py', config, weights, *work_dir, *options)
        for row in part:
            metrics = json.loads((out / row['split'] / 'metrics.json').read_text())
            for measure in ('oIoU', 'mIoU', 'Pr@0.5', 'Pr@0.9', 'expressions'):
                assert float(row[measure]) == metrics[measure]
    for row, score in zip(rows[:3], (50, 40, 30)):
        assert row['published'] == f'mIoU {score}.00'
        assert row['difference'] == f'{float(row["mIoU"]) - score:+.2f}'
        assert re.search(rf'{row["split"]} .*\| +mIoU {score}.00 +\|', printed)
    assert all(row['published'] == row['difference'] == '' for row in rows[3:])


@pytest.mark.slow
def test_a_network_can_be_tested_by_any_protocol(network, tmp_path):
    config, weights = network
    options = ['--splits', 'testA', '--work-dir', tmp_path / 'run', '--protocols', *PROTOCOLS]
    run_tool('analysis_tools/benchmark_splits.py', config, weights, '--out', tmp_path, *options)
    rows = list(csv.DictReader((tmp_path / 'benchmark.csv').open()))
    scores = {row['protocol']: float(row['mIoU']) for row in rows}
    assert list(scores) == ['OriginalProtocol(threshold=0.35)', *PROTOCOLS]
    # The pictures are square, so that a larger square and another interpolation change little;
    # CRIS's threshold is lower.
    for name in ('LAVTProtocol', 'CGFormerProtocol'):
        assert scores[name] == pytest.approx(scores['OriginalProtocol'], abs=1)
    assert scores['CRISProtocol'] == pytest.approx(
        scores['OriginalProtocol(threshold=0.35)'], abs=1
    )


def test_the_protocol_of_the_config_is_not_tested_twice():
    own = dict(type='LAVTProtocol', size=(448, 448))
    cfg = Config(dict(model=dict(test_cfg=dict(protocol=own))))
    assert protocols_of(cfg) == [own, dict(type='OriginalProtocol')]
    cfg.model.test_cfg.protocol = plain = dict(type='OriginalProtocol')
    assert protocols_of(cfg, ['OriginalProtocol', 'CRISProtocol']) == [
        plain,
        dict(type='CRISProtocol'),
    ]


@pytest.mark.parametrize(
    'config, expected',
    [
        (
            'cris/cris_r50_nemo_8xb8-50e_refcoco-416x416.py',
            dict(val=dict(oIoU=68.66), testA=dict(oIoU=72.82), testB=dict(oIoU=63.06)),
        ),
        (
            'lavt/lavt_swin-base-w12_4xb8-40e_refcocog-umd-480x480.py',
            dict(val=dict(oIoU=61.24), test=dict(oIoU=62.09)),
        ),
        (
            'rela/rela_swin-base-w12_8xb6-150000i_grefcoco-480x480.py',
            dict(val=dict(gIoU=63.60, cIoU=62.42)),
        ),
        ('vpd/vpd_sd15_8xb4-40e_refcoco-plus-512x512.py', dict(val=dict(oIoU=63.93))),
        ('lavt/lavt-one_swin-base-w12_8xb4-40e_refcoco-480x480.py', {}),
        ('rela/rela_swin-base-w12_nemo_8xb6-150000i_grefcoco-480x480.py', {}),
        ('zero_shot/clipseg_vit-b-16_refcoco-352x352.py', {}),
    ],
)
def test_published_scores_are_those_of_the_method_file(config, expected):
    assert published_scores(CONFIGS / config) == expected


def test_splits_are_those_of_the_split_file(refshapes, tmp_path):
    dataset = dict(data_root=f'{refshapes}/', split_file='refshapes+/refs(unc).p')
    assert splits_of(dataset) == {'train', 'val', 'testA', 'testB'}
    assert [split for _, split in runs_of([dataset])] == ['val', 'testA', 'testB']
    broken = tmp_path / 'grefs.json'
    broken.write_text('{}')
    with pytest.raises(ValueError, match='grefs.json: the file.*a list of references'):
        splits_of(dict(split_file=str(broken)))


def test_the_splits_of_the_json_form_are_read_from_it(refshapes, tmp_path):
    folder, out = refshapes / 'refshapes+', tmp_path / 'own.json'
    refcoco_to_json(str(folder / 'refs(unc).p'), str(folder / 'instances.json'), str(out))
    dataset = dict(type='ReferringJSONDataset', data_root=f'{tmp_path}/', ann_file='own.json')
    assert splits_of(dataset) == {'train', 'val', 'testA', 'testB'}


def test_splits_of_data_sets_without_a_split_file(tmp_path):
    for name, splits in [('refcoco', 'val testA testB'), ('refcocog', 'val test')]:
        parquet = dict(type='ParquetRefCOCODataset', ann_file=f'jxu124/{name}', dataset=name)
        assert [split for _, split in runs_of([parquet])] == splits.split()
    assert splits_of(dict(type='RefCOCOMDataset')) == {'val'}
    (tmp_path / 'test.pickle').touch()
    referit = dict(data_root=str(tmp_path), split_file='{split}.pickle')
    assert runs_of([referit]) == [(referit, 'test')]
    other = dict(type='OtherDataset')
    assert runs_of([other], ['mine']) == [(other, 'mine')]
    with pytest.raises(ValueError, match='not known .OtherDataset: not known.: use --splits'):
        runs_of([other])


def test_each_data_set_is_tested_on_those_splits_that_it_has():
    one, two = (
        dict(type='ParquetRefCOCODataset', ann_file=f'jxu124/{name}', dataset=name)
        for name in ('refcoco', 'refcocog')
    )
    assert runs_of([one, two], ['testA', 'val']) == [(one, 'testA'), (one, 'val'), (two, 'val')]
    assert runs_of([one, two], ['train', 'test']) == [
        (one, 'train'), (two, 'train'), (two, 'test'),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"the split 'testC'; there are jxu124/refcoco: \['testA'"):
        runs_of([one, two], ['val', 'testC'])


def test_what_was_measured_is_kept_when_a_split_fails(network, tmp_path, monkeypatch):
    def measured(cfg, checkpoint, split, out_dir):
        init_default_scope('mmseg')  # as a run does, for the tests that follow
        if split == 'testB':
            raise RuntimeError('out of memory')
        return dict(expressions=7, mIoU=50.0)

    monkeypatch.setattr(sys.modules['nemo_mmseg.apis.evaluate'], 'evaluate', measured)
    with pytest.raises(RuntimeError, match='out of memory'):
        run_tool('analysis_tools/benchmark_splits.py', *network, '--out', tmp_path)
    rows = list(csv.DictReader((tmp_path / 'benchmark.csv').open()))
    assert [(row['split'], float(row['mIoU'])) for row in rows] == [('val', 50), ('testA', 50)]


def test_a_joint_config_is_tested_on_all_that_it_trains_on():
    cfg = Config.fromfile(CONFIGS / 'cris' / 'cris_r50_nemo_8xb8-50e_refcoco-joint-416x416.py')
    found = datasets_to_test(cfg)
    files = ['refcoco/refs(unc).p', 'refcoco+/refs(unc).p', 'refcocog/refs(umd).p']
    assert [one.split_file for one in found] == files
    own = cfg.test_dataloader.dataset
    for one, file in zip(found, files):
        changed = dict(split_file=file, ann_file=f'{file.split("/")[0]}/instances.json')
        assert one == dict(own, **changed), 'it is read as the test data set'
    plain = Config.fromfile(CONFIGS / 'cris' / 'cris_r50_8xb8-50e_refcoco-416x416.py')
    assert datasets_to_test(plain) == [plain.test_dataloader.dataset]
    plain.test_dataloader.dataset = cfg.train_dataloader.dataset
    with pytest.raises(ValueError, match='ConcatDataset wraps data sets'):
        datasets_to_test(plain)


def test_data_sets_of_different_kinds_are_each_read_in_their_own_way():
    refcoco, own = (
        Config.fromfile(CONFIGS / '_base_' / 'datasets' / f'{name}.py')
        for name in ('refcoco', 'own')
    )
    json_set = dict(own.train_dataloader.dataset, text_key='caption', mask_file='pseudo.json')
    json_set |= dict(indices=5, leak_guard=dict(split_files=['a']))
    del json_set['split']
    cfg = Config(dict(test_dataloader=refcoco.test_dataloader))
    datasets = [refcoco.train_dataloader.dataset, json_set]
    cfg.train_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=datasets))
    test = cfg.test_dataloader.dataset
    found = datasets_to_test(cfg)
    assert found[0] == test
    assert found[1] == dict(
        type='ReferringJSONDataset', data_root='data/own/', ann_file='own.json', text_key='caption',
        data_prefix=dict(img_path='images/', mask_path='masks/'),
        pipeline=test.pipeline, group_by='image', test_mode=True, split='val',
    )  # fmt: skip


def test_a_line_divides_protocols_and_data_sets():
    names = [('A', 'one'), ('A', 'one'), ('A', 'two'), ('B', 'two')]
    rows = [dict(protocol=a, data=b, oIoU=1 / 3, published=None) for a, b in names]
    lines = table_of(rows).splitlines()
    kinds = ['-' if line.startswith('+') else line.split()[1] for line in lines]
    assert kinds == ['-', 'protocol', '-', 'A', 'A', '-', 'A', '-', 'B', '-']
    assert lines[3].split('|')[3:] == [' 0.33 ', '           ', '']
