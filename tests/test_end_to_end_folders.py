"""Training with images in folders: the same run as with all images in one."""

import json
import posixpath
import re
import shutil
from pathlib import Path

import pytest
from small_runs import NEMO, RecordSamples, assert_same_weights, small_config, train

from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.negatives.tile_store import TileStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def foldered(make_once, refshapes) -> Path:
    """RefShapes with its images in three folders, in which different images have equal names."""

    def make(folder: Path) -> None:
        for part in ('refshapes+', 'train2014'):
            shutil.copytree(refshapes / part, folder / part)
        file = folder / 'refshapes+' / 'instances.json'
        tables = json.loads(file.read_text())
        for number, image in enumerate(sorted(tables['images'], key=lambda image: image['id'])):
            name = f'part{number % 3}/{number // 3}.jpg'
            path = folder / 'train2014' / name
            path.parent.mkdir(exist_ok=True)
            (folder / 'train2014' / image['file_name']).rename(path)
            image['file_name'] = f'./{name}'
        file.write_text(json.dumps(tables))

    return make_once('foldered', make)


def test_mining_tiles_and_training_know_folders(refshapes, foldered, tmp_path):
    ends, records = [], []
    for kind, data in (('plain', refshapes), ('foldered', foldered)):
        cfg = small_config(NEMO, data, tmp_path / f'{kind}.bank')
        cfg.train_dataloader.dataset.pipeline[1].tiles = dict(path=str(tmp_path / f'{kind}.tiles'))
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2)
        cfg.custom_hooks.append(dict(type='RecordSamples'))
        ends.append(train(cfg, tmp_path / kind)[1])
        records.append(list(RecordSamples.records))
    assert_same_weights(*ends)
    names = dict(enumerate(NegativeBank(tmp_path / 'foldered.bank').image_names))
    others = dict(enumerate(NegativeBank(tmp_path / 'plain.bank').image_names))
    assert all(re.fullmatch(r'part[012]/\d+\.jpg', name) for name in names.values())
    assert len({posixpath.basename(name) for name in names.values()}) < len(names)
    assert set(TileStore(tmp_path / 'foldered.tiles').names) == set(names.values())
    # Both runs show the same images, by whatever name.
    same, mosaics = {others[row]: names[row] for row in names}, 0
    for plain, foldered_one in zip(*records, strict=True):
        if plain['mosaic'] is not None:
            mosaics += 1
            shown = [same[name] for name in plain['mosaic']['names']]
            assert shown == list(foldered_one['mosaic']['names'])
    assert mosaics > 5
