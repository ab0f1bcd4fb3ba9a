import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_mmseg.negatives.bank import NegativeBank

TOOL = str(Path(__file__).parents[2] / 'tools' / 'mine_negatives.py')

# A module the config imports: registers the tiny CLIP and a data set around the tiny one.
PLUGIN = """
import runpy
from mmengine.dataset import BaseDataset
from mmseg.registry import DATASETS

tiny = runpy.run_path({program!r})
tiny['register_clip']({folder!r})

@DATASETS.register_module(force=True)
class TinyReferring(BaseDataset):
    def __init__(self, pipeline=()):
        data = tiny['TinyData']({folder!r})
        self.pool, self.split, self.fingerprint = data.pool, data.split, data.fingerprint
        self.expressions, self.split_file = data.expressions, None
        super().__init__(pipeline=list(pipeline), metainfo=data.metainfo)

    def load_data_list(self):
        return [dict(i=0)]
"""
CONFIG = """
custom_imports = dict(imports=['plugin_of_tool_test'], allow_failed_imports=False)
bank = dict(path={path!r}, model='NeMo-Test-CLIP', pretrained={weights!r}, keep=12)
band = dict(tau=1.0, tau_mode='absolute')
mosaic = dict(type='NeMoMosaic', size=(32, 32), transforms=[], bank=bank, band=band)
train_dataloader = dict(dataset=dict(type='TinyReferring', pipeline=[mosaic]))
"""


@pytest.fixture
def config(tiny, shared_folder, tmp_path, monkeypatch):
    text = PLUGIN.format(program=tiny.program, folder=shared_folder)
    (tmp_path / 'plugin_of_tool_test.py').write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / 'config.py'
    path.write_text(
        CONFIG.format(path=str(tmp_path / 'bank'), weights=shared_folder + '/weights.pt')
    )
    return path


def run(monkeypatch, *arguments):
    """The tool in this process."""
    monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, arguments), '--workers', '0'])
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    runpy.run_path(TOOL, run_name='__main__')


def test_mines_the_bank_of_the_config(config, tmp_path, monkeypatch):
    run(monkeypatch, config, '--local_rank', '0', '--batch-size', '8')
    bank = NegativeBank(tmp_path / 'bank')
    assert len(bank) == 130 and bank.stored == 12
    run(monkeypatch, config, '--local-rank=0')  # there is nothing left to do


def test_settings_of_the_command_line_go_to_another_file(
    config, shared_folder, tmp_path, monkeypatch, capsys
):
    run(monkeypatch, config, '--keep', 5, '--out', tmp_path / 'other')
    assert NegativeBank(tmp_path / 'other').stored == 5 and not (tmp_path / 'bank').exists()
    shutil.copytree(shared_folder, tmp_path / 'negatives', ignore=lambda *_: ['image_000.jpg'])
    images = ('--images', tmp_path / 'negatives', '--out', tmp_path / 'of_folder')
    run(monkeypatch, config, *images)
    assert NegativeBank(tmp_path / 'of_folder').num_candidates == 39
    with pytest.raises(SystemExit):
        run(monkeypatch, config, '--keep', 5)
    assert 'name another file by --out' in capsys.readouterr().err


def test_a_config_without_mosaic(config, shared_folder, tmp_path, monkeypatch):
    without = ('--cfg-options', 'train_dataloader.dataset.pipeline=[]')
    with pytest.raises(
        ValueError, match='has nothing .* needs a bank.*--out, --model and --pretrained'
    ):
        run(monkeypatch, config, *without)
    model = ('--model', 'NeMo-Test-CLIP', '--pretrained', shared_folder + '/weights.pt')
    run(monkeypatch, config, *model, '--out', tmp_path / 'other', '--keep', 3, *without)
    assert NegativeBank(tmp_path / 'other').stored == 3


@pytest.mark.slow
def test_under_torchrun(config, tmp_path, shared_folder):
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone',
         TOOL, str(config), '--workers', '1'],
        env=dict(os.environ, PYTHONPATH=f'{tmp_path}{os.pathsep}{os.environ["PYTHONPATH"]}'),
        capture_output=True,
        text=True,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(NegativeBank(tmp_path / 'bank')) == 130
    assert not os.path.exists(tmp_path / 'bank.work')
