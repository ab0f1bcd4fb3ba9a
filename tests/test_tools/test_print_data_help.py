"""The help names what is missing, where it goes, where it comes from and how large it is."""

import sys

import pytest
from check_data import check_data, format_reports
from mmengine.config import Config
from parquet_files import REFCOCO, refcoco_rows, write
from print_data_help import describe, main, needed_files

from nemo_mmseg.datasets.sources import source_of
from nemo_mmseg.utils.config import find_config

CONFIGS = [
    'cris_r50_8xb8-50e_refcoco-416x416',
    'cris_r50_8xb8-50e_refcoco-reviewed-416x416',
    'cris_r50_8xb8-50e_refcocog-umd-parquet-416x416',
    'cris_r50_8xb8-50e_refcoco-m-416x416',
    'cris_r50_8xb8-50e_rrefcoco-plus-416x416',
    'rela_swin-base-w12_8xb6-150000i_ref-zom-480x480',
    'rela_swin-base-w12_8xb6-150000i_grefcoco-480x480',
    'tris-stage1_r50_1xb48-15e_referit-320x320',
    'cris_refshapes-clip_nemo_1xb16-4e_grefshapes-256x256',
    'lavt_swin-base-w12_nemo_4xb8-40e_refcoco-joint-480x480',
    'tris-stage2_r50_1xb48-15e_refcoco-320x320',
    'tris-stage2_refshapes-clip_1xb16-6e_refshapes-plus-json-256x256',
]


@pytest.mark.parametrize('name', CONFIGS)
def test_what_a_shipped_config_reads_has_a_source(name):
    files = needed_files(Config.fromfile(find_config(name)))
    assert len(files) >= 2
    for file in files:
        assert file.source is not None, file.path


def test_sources_are_told_by_the_end_of_the_path():
    assert '13 GB' in source_of('/data/coco/train2014/').size
    assert 'make_refshapes' in source_of('data/refshapes/train2014/').where
    assert 'make_refshapes' in source_of('data/refshapes/refshapes+/instances.json').where
    assert source_of('data/refcoco/reviewed_val.json').where.startswith('yours')
    assert 'lichengunc' in source_of('data/refcoco+/refs(unc).p').where
    assert 'robust' in source_of('data/rrefcoco+/instances.json').where
    assert source_of('data/mine/images') is None


def test_the_tool_lists_what_is_there_and_what_is_missing(mini, monkeypatch, capsys):
    split_file, images = mini.root / 'mini' / 'refs(unc).p', mini.root / 'images'
    dataset = mini.config(gt_overlay='moondream/refcoco-m')
    file = mini.root / 'config.py'
    file.write_text(f'test_dataloader = dict(dataset={dataset!r})\n')
    split_file.unlink()
    monkeypatch.setattr(sys, 'argv', ['print_data_help.py', str(file)])
    assert main() == 1
    printed = capsys.readouterr().out
    there, missing = printed.index(f'there: {images}'), printed.index(f'MISSING: {split_file}')
    assert there < missing
    overlay = printed[printed.index(f'MISSING: {mini.root}/moondream/refcoco-m') :]
    assert 'read by: test' in overlay and 'size: 610 MB' in overlay
    assert 'hf download --repo-type dataset moondream/refcoco-m' in overlay
    mini.write()
    write(mini.root / 'moondream' / 'refcoco-m' / 'data' / 'val.parquet', [], REFCOCO)
    assert main() == 0
    printed = capsys.readouterr().out
    assert 'MISSING' not in printed and '4 files and folders, 0 missing' in printed


def test_all_data_sets_of_a_joint_config_are_listed_once():
    files = needed_files(Config.fromfile(find_config(CONFIGS[-3])))
    names = ['refcoco', 'refcoco+', 'refcocog']
    annotations = [f'data/{name}/instances.json' for name in names]
    splits = [f'data/{name}/refs({"umd" if "g" in name else "unc"}).p' for name in names]
    assert sorted(file.path for file in files) == sorted(
        [*annotations, *splits, 'data/coco/train2014/']
    )


def test_what_guards_and_transforms_read_is_listed(mini):
    guard = dict(split_files=['mini/other.p'], data_root=str(mini.root))
    pipeline = [
        dict(type='SampleExpressions', paraphrases='ways.json'),
        dict(type='NeMoMosaic', leak_guard=dict(guard, split_files=['mini/third.p'])),
    ]
    dataset = mini.config(pipeline, leak_guard=guard)
    dataset['data_prefix'] = dict(img_path='images', mask_path='masks')
    text = describe(needed_files(Config(dict(train_dataloader=dict(dataset=dataset)))))
    for path in ('mini/other.p', 'mini/third.p', 'masks'):
        assert f'MISSING: {mini.root}/{path}\n' in text
    assert 'from: yours; not needed if no mask is a PNG' in text
    assert 'MISSING: ways.json\n  read by: train\n  from: yours' in text
    assert text.endswith('7 files and folders, 4 missing')


def test_weights_that_are_no_download_are_listed(tmp_path):
    (tmp_path / 'swin.pth').write_bytes(b'1234')
    model = dict(
        backbone=dict(pretrained=f'{tmp_path}/swin.pth'),
        text_encoder=dict(model='RN50', pretrained='openai'),
        aux=[dict(init_cfg=dict(type='Pretrained', checkpoint=f'{tmp_path}/aux.pth'))],
        neck=dict(pretrained='https://host/neck.pth', frozen=dict(pretrained=None)),
    )
    files = needed_files(Config(dict(model=model, load_from=f'{tmp_path}/start.pth')))
    text = describe(files)
    assert f'there: {tmp_path}/swin.pth, 0.0 MB\n' in text
    for name in ('aux', 'start'):
        assert f'MISSING: {tmp_path}/{name}.pth\n  read by: model\n  from: yours' in text
    assert text.endswith('3 files and folders, 2 missing')


def test_an_empty_folder_of_images_is_missing(mini):
    (mini.root / 'empty').mkdir()
    dataset = mini.config(data_prefix=dict(img_path='empty'))
    text = describe(needed_files(Config(dict(val_dataloader=dict(dataset=dataset)))))
    assert f'MISSING: {mini.root}/empty' in text and 'from: not known' in text


def test_check_data_prints_the_fingerprint_of_a_split(mini):
    (mini.root / 'data').mkdir()
    write(mini.root / 'data' / 'train.parquet', refcoco_rows(mini, 'train'), REFCOCO)
    own = dict(type='ParquetRefCOCODataset', ann_file='data', dataset='refcoco')
    parquet = mini.config(**own)
    del parquet['split_file']
    prints = []
    for dataset in (parquet, mini.config()):
        cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
        (report,) = check_data(cfg, ['train'], decode=False, progress=False)
        assert report.fingerprint in format_reports([report])
        prints.append(report.fingerprint)
    assert prints[0] == prints[1], 'the mirror is the published split'
    assert prints[0].startswith('5 references, 9 expressions, 4 images; sentence ids ')
    assert prints[0].endswith('the counts of no published split')
