"""Sheets of training samples: what is on them, that they repeat, and that nothing is mined."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from nemo_mmseg.refshapes.write import make_refshapes
from nemo_mmseg.visualization.browse import browse_dataset, describe_mosaic, draw_training_sample

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'browse_dataset.py'


def make_packed(num: int, mosaic: dict | None = None, **meta) -> dict:
    """A grey image of 80x120 (BGR 40, 80, 120) with its masks in the lower right quarter."""
    inputs = torch.tensor([40, 80, 120], dtype=torch.uint8)[:, None, None].repeat(1, 80, 120)
    masks = torch.zeros(num, 80, 120, dtype=torch.uint8)
    masks[:, 50:70, 70:110] = 1
    sample = SegDataSample(gt_sem_seg=PixelData(data=masks))
    if mosaic is not None:
        meta['mosaic'] = mosaic
    sample.set_metainfo(dict(expressions=[f'thing {i}' for i in range(num)], **meta))
    return dict(inputs=inputs, data_samples=sample)


def make_mosaic(**changes) -> dict:
    nan = float('nan')
    mosaic = dict(
        kind='mined', cell=3, grid=(2, 2), names=['a', 'b', 'c'], similarities=[0.25, 0.125, nan],
        self_similarity=0.3125, truncated=False, num_filled=1, edges=([0, 40, 80], [0, 60, 120]),
    )  # fmt: skip
    return {**mosaic, **changes}


def test_colours_are_rgb_and_the_mask_is_marked():
    drawn = draw_training_sample(make_packed(1))
    assert drawn.shape[1] == 120
    image = drawn[-80:]
    assert image[10, 10].tolist() == [120, 80, 40]
    assert image[60, 90].tolist() != [120, 80, 40]
    two = draw_training_sample(make_packed(2))
    assert two.shape == (drawn.shape[0], 2 * 120 + 6, 3)


def test_cells_are_labelled_where_they_are():
    plain = draw_training_sample(make_packed(1))[-80:]
    corners = {(0, 0): (2, 2), (0, 1): (2, 62), (1, 0): (42, 2), (1, 1): (42, 62)}
    for flip in (False, True):
        drawn = draw_training_sample(make_packed(1, make_mosaic(), flip=flip))[-80:]
        for top, left in corners.values():
            assert (drawn[top : top + 8, left : left + 20] != plain[top, left]).any()
        # the target's plate is green: it has moved to the left column with the flip
        greens = [(drawn[t, x + 1] == (0, 158, 115)).all() for t, x in corners.values()]
        assert greens == [False, False, flip, not flip]


def test_description():
    text = describe_mosaic(make_mosaic(truncated=True))
    assert text == 'mined mosaic 2x2, target image 0.312, 1 filled at random, band truncated'
    random = make_mosaic(kind='random', self_similarity=float('nan'), num_filled=0)
    assert describe_mosaic(random) == 'random mosaic 2x2'


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('refshapes')
    make_refshapes(root, 'refshapes', dict(train=6, val=1, testA=1, testB=1), workers=1)
    return root


def make_config(data: Path, schedule: dict, bank: dict | None = None) -> Config:
    load = [
        dict(type='LoadReferringImage'),
        dict(type='LoadReferentMask'),
        dict(type='Letterbox', size=(96, 96)),
    ]
    nemo = dict(type='NeMoMosaic', size=(96, 96), transforms=load, bank=bank)
    nemo['schedule'] = dict(schedule, start_epoch=4)
    pipeline = [dict(type='SampleExpressions', num=1), nemo, dict(type='PackReferringInputs')]
    dataset = dict(
        type='RefCOCODataset', data_root=str(data), ann_file='refshapes/instances.json',
        split_file='refshapes/refs(unc).p', split='train', pipeline=pipeline,
        data_prefix=dict(img_path='train2014/'),
    )  # fmt: skip
    wrapped = dict(type='ConcatDataset', datasets=[dataset, dataset])
    return Config(dict(train_dataloader=dict(dataset=wrapped), randomness=dict(seed=3)))


RANDOM = dict(random=1.0, mined=0.0)


def test_sheets_repeat_and_show_the_epoch_in_which_mosaics_begin(data: Path, tmp_path: Path):
    cfg = make_config(data, RANDOM)
    options = dict(num=5, num_cols=2, num_rows=2, progress=False)
    files = browse_dataset(cfg, tmp_path / 'a', **options)
    assert [file.name for file in files] == ['sheet_000.png', 'sheet_001.png']
    again = browse_dataset(cfg, tmp_path / 'b', **options)
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    before = browse_dataset(cfg, tmp_path / 'c', epoch=0, **options)
    assert before[0].read_bytes() != files[0].read_bytes()
    assert np.array(Image.open(files[0])).shape[1] == 2 * 96 + 10


def test_a_missing_bank_names_the_command(data: Path, tmp_path: Path):
    bank = dict(path=str(tmp_path / 'no.safetensors'), model='RN50', pretrained='openai', keep=3)
    cfg = make_config(data, dict(mined=0.01), bank)
    with pytest.raises(FileNotFoundError, match=r'no\.safetensors.*tools/mine_negatives\.py'):
        browse_dataset(cfg, tmp_path / 'out', progress=False)
    assert not list(tmp_path.iterdir())


def test_the_tool(data: Path, tmp_path: Path, monkeypatch):
    make_config(data, RANDOM).dump(tmp_path / 'config.py')
    options = ['--out', str(tmp_path / 'out'), '--num', '2']
    monkeypatch.setattr('sys.argv', ['', str(tmp_path / 'config.py'), *options])
    runpy.run_path(str(TOOL), run_name='__main__')
    assert (tmp_path / 'out' / 'sheet_000.png').is_file()
