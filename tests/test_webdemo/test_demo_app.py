"""What the demo's program prepares, and what it says where there is nothing to show."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from small_runs import NEMO, small_config

from nemo_mmseg.apis import init_model, save_pretrained
from nemo_mmseg.webdemo import MosaicBrowser, small_refshapes_configs

TOOL = Path(__file__).parents[2] / 'tools' / 'demo_app.py'
CRIS = 'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'


@pytest.fixture
def prepare(monkeypatch):
    """Do what the program does before it serves the page."""
    tool = runpy.run_path(str(TOOL))

    def prepared(*arguments):
        monkeypatch.setattr(sys, 'argv', ['demo_app.py', *map(str, arguments)])
        return tool['prepare'](tool['parse_args']())

    return prepared


@pytest.fixture
def config(refshapes, refshapes_bank, tmp_path):
    """Write a config of the small network beside NeMo's training data; return its path."""

    def written(**changes):
        cfg, _ = small_refshapes_configs(refshapes)
        bank = tmp_path / 'bank.safetensors'
        shutil.copy(refshapes_bank, bank)
        cfg.train_dataloader = small_config(NEMO, refshapes, bank).train_dataloader
        cfg.train_dataloader.dataset.update(changes)
        cfg.dump(tmp_path / 'config.py')
        return tmp_path / 'config.py'

    return written


def test_network_and_mosaics_are_there(prepare, config):
    prepared = prepare(config(), '--device', 'cpu')
    assert isinstance(prepared['browser'], MosaicBrowser)
    assert prepared['segment'].inferencer.model.training_free


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(split='val'), 'bank.safetensors'),  # a bank of other data
        (dict(type='Missing'), 'Missing'),
        (dict(depth=3), 'depth'),
    ],
)
def test_where_there_is_nothing_to_browse_the_page_says_why(prepare, config, changes, words):
    browser = prepare(config(**changes), '--device', 'cpu')['browser']
    assert browser.startswith('There is nothing to browse: ') and words in browser


def test_a_damaged_bank_is_a_message(prepare, config, tmp_path):
    path, bank = config(), tmp_path / 'bank.safetensors'
    bank.write_bytes(bank.read_bytes()[:-100])
    browser = prepare(path, '--device', 'cpu')['browser']
    assert browser.startswith('There is nothing to browse: ') and str(bank) in browser


def test_data_whose_reader_is_not_installed_leaves_the_pictures(
    prepare, config, tmp_path, monkeypatch
):
    (tmp_path / 'val.parquet').touch()
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    prepared = prepare(config(gt_overlay=str(tmp_path)), '--device', 'cpu')
    assert 'nemo-mmsegmentation[parquet]' in prepared['browser']
    assert prepared['segment'].inferencer.model.training_free


def test_options_that_would_do_nothing_are_refused(prepare, capsys):
    with pytest.raises(SystemExit):
        prepare('--refshapes', '--cfg-options', 'randomness.seed=3')
    assert '--cfg-options' in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_takes_the_place_of_the_weights_of_a_hub_folder(prepare, tmp_path):
    """As the help says."""
    with pytest.warns(UserWarning, match='untrained'):
        model = init_model(CRIS, device='cpu')
    save_pretrained(model, tmp_path / 'hub')
    weights = {name: torch.full_like(value, 2) for name, value in model.state_dict().items()}
    torch.save(weights, tmp_path / 'other.pth')
    for arguments, wanted in [([], model.state_dict()), ([tmp_path / 'other.pth'], weights)]:
        segment = prepare(tmp_path / 'hub', *arguments, '--device', 'cpu')['segment']
        found = segment.inferencer.model.state_dict()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
