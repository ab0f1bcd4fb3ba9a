"""Every kind of error is found, named, and told by the exit code."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from check_data import check_data, format_reports
from check_data import main as check_data_main
from mmengine.config import Config
from PIL import Image

import nemo_mmseg  # noqa: F401  (registers)


def write_data(root: Path, num: int = 4) -> dict:
    """A data set of `num` images in RefCOCO's layout; two references an image. Returns parts."""
    (root / 'train2014').mkdir()
    (root / 'refcoco').mkdir()
    images, annotations, refs = [], [], []
    for index in range(num):
        name = f'{index}.jpg'
        Image.fromarray(np.full((30, 40, 3), 60 * index, np.uint8)).save(root / 'train2014' / name)
        images.append(dict(id=100 + index, file_name=name, height=30, width=40))
        for half in range(2):
            left = 20 * half
            box = [left + 1, 2, left + 15, 2, left + 15, 20, left + 1, 20]
            number = 2 * index + half
            annotations.append(
                dict(
                    id=number,
                    image_id=100 + index,
                    category_id=1,
                    segmentation=[box],
                    area=1.0,
                    bbox=[left, 2, 15, 18],
                    iscrowd=0,
                )
            )
            refs.append(
                dict(
                    ref_id=number,
                    ann_id=number,
                    image_id=100 + index,
                    split='train',
                    category_id=1,
                    file_name=name,
                    sent_ids=[2 * number, 2 * number + 1],
                    sentences=[
                        dict(sent_id=2 * number + k, sent=f'thing {k}', raw='x', tokens=['x'])
                        for k in range(2)
                    ],
                )
            )
    parts = dict(images=images, annotations=annotations, refs=refs)
    save(root, parts)
    return parts


def save(root: Path, parts: dict) -> None:
    instances = dict(images=parts['images'], annotations=parts['annotations'], categories=[])
    (root / 'refcoco' / 'instances.json').write_text(json.dumps(instances))
    with open(root / 'refcoco' / 'refs(unc).p', 'wb') as file:
        pickle.dump(parts['refs'], file)


def make_config(root: Path) -> Config:
    dataset = dict(
        type='RefCOCODataset',
        data_root=str(root),
        ann_file='refcoco/instances.json',
        split_file='refcoco/refs(unc).p',
        split='train',
        data_prefix=dict(img_path='train2014/'),
        pipeline=[dict(type='LoadReferringImage')],
    )
    return Config(
        dict(
            train_dataloader=dict(
                dataset=dict(type='ConcatDataset', datasets=[dataset, dict(dataset, split='val')])
            ),
            val_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=dataset)),
            test_dataloader=None,
        )
    )


@pytest.mark.filterwarnings('ignore:.*were published')
def test_sound_data(tmp_path: Path):
    write_data(tmp_path)
    reports = check_data(make_config(tmp_path), ['val', 'test'], progress=False)
    assert len(reports) == 1 and reports[0].errors == []
    assert reports[0].counts == dict(references=8, expressions=16, images=4, objects=8)
    assert reports[0].loaders == ['val']


@pytest.mark.filterwarnings('ignore:.*were published')
def test_a_data_set_in_two_loaders_is_checked_once(tmp_path: Path):
    write_data(tmp_path)
    reports = check_data(make_config(tmp_path), progress=False)
    assert [report.loaders for report in reports] == [['train', 'val'], ['train']]
    assert "no split 'val'" in reports[1].errors[0]
    assert 'no split' in format_reports(reports)


@pytest.mark.filterwarnings('ignore:.*were published')
def test_every_error_is_named(tmp_path: Path):
    parts = write_data(tmp_path)
    (tmp_path / 'train2014' / '0.jpg').unlink()
    (tmp_path / 'train2014' / '1.jpg').write_bytes(b'no image')
    parts['images'][2]['width'] = 41
    parts['annotations'][6]['segmentation'] = [[1, 1, 1, 1, 1, 1]]
    parts['annotations'][7]['segmentation'] = dict(size=[9, 9], counts=[0, 81])
    parts['refs'][5]['sentences'][0]['sent_id'] = 0
    save(tmp_path, parts)
    cfg = make_config(tmp_path)
    errors = check_data(cfg, ['val'], progress=False)[0].errors
    expected = [
        ('instances.json', 'annotation 7: size of segmentation is [9, 9]'),
        ('sent_id 0', '2 expressions'),
        ('image 100', '0.jpg'),
        ('image 101', '1.jpg'),
        ('image 102', '41x30'),
        ('image 103', 'annotation 6'),
    ]
    assert len(errors) == len(expected)
    for error, words in zip(errors, expected, strict=True):
        assert all(word in error for word in words), (error, words)
    fast = check_data(cfg, ['val'], decode=False, progress=False)[0].errors
    assert len(fast) == 3 and 'is missing' in fast[2]


@pytest.mark.filterwarnings('ignore:.*were published')
def test_wrong_references_are_all_listed_and_the_rest_is_checked(tmp_path: Path):
    parts = write_data(tmp_path)
    parts['refs'][0]['ann_id'] = 77
    parts['refs'][1]['image_id'] = 103
    parts['refs'][2]['sentences'] = []
    parts['refs'][3]['sentences'][1]['sent'] = ' '
    parts['annotations'][5]['segmentation'] = []
    (tmp_path / 'train2014' / '3.jpg').unlink()
    save(tmp_path, parts)
    report = check_data(make_config(tmp_path), ['val'], progress=False)[0]
    words = ['reference 2', 'expression 7', 'reference 0', 'reference 1', 'annotation 5', '3.jpg']
    assert len(report.errors) == len(words)
    for error, word in zip(report.errors, words, strict=True):
        assert word in error
    assert report.counts['references'] == 3


def test_exit_code(tmp_path: Path, monkeypatch, capsys):
    write_data(tmp_path)
    make_config(tmp_path).dump(tmp_path / 'config.py')
    arguments = ['check_data.py', str(tmp_path / 'config.py'), '--split', 'val']
    monkeypatch.setattr(sys, 'argv', arguments)
    assert check_data_main() == 0 and '16' in capsys.readouterr().out
    (tmp_path / 'train2014' / '3.jpg').unlink()
    monkeypatch.setattr(sys, 'argv', [*arguments, '--fast'])
    assert check_data_main() == 1 and "3.jpg' is missing" in capsys.readouterr().out
