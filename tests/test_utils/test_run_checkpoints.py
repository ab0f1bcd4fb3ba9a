"""Whatever way a config names a checkpoint, it is checked before the run."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from nemo_mmseg.utils import run_checkpoints
from nemo_mmseg.utils.run_checkpoints import check_run_checkpoints

NAN = float('nan')


@pytest.fixture
def save(tmp_path):
    def write(weight=1.0, moment=1.0):
        optimizer = dict(state={0: dict(exp_avg=torch.tensor([moment]))}, param_groups=[])
        file = tmp_path / 'epoch_1.pth'
        content = dict(state_dict=dict(w=torch.tensor([weight])), optimizer=optimizer)
        torch.save(dict(content, meta=dict(epoch=1)), file)
        (tmp_path / 'last_checkpoint').write_text(str(file))
        return str(file)

    return write


def configs(file):
    """Configs that name the file, each in its way."""
    folder = str(Path(file).parent)
    init = dict(type='Pretrained', checkpoint=file)
    for model in (
        dict(init_cfg=init),
        dict(backbone=dict(init_cfg=[dict(type='Normal'), init])),
        dict(losses=[dict(network=dict(init_cfg=init))]),
    ):
        yield Config(dict(model=model, work_dir=folder))
    yield Config(dict(load_from=file, work_dir=folder))
    yield Config(dict(load_from=file, resume=True, work_dir=folder))
    yield Config(dict(load_from=None, resume=True, work_dir=folder))


@pytest.mark.parametrize('way', range(6))
def test_a_checkpoint_that_is_not_finite_is_named(save, way):
    list(map(check_run_checkpoints, configs(save())))
    file = save(weight=NAN)
    with pytest.raises(ValueError, match=f"{file}: the tensor 'w' has values .* not finite"):
        check_run_checkpoints(list(configs(file))[way])


def test_an_optimizer_is_looked_at_where_it_is_used(save):
    *others, resumed, newest = configs(save(moment=NAN))
    list(map(check_run_checkpoints, others))
    for cfg in (resumed, newest):
        with pytest.raises(ValueError, match='tensor optimizer.state.0.exp_avg has values'):
            check_run_checkpoints(cfg)


def test_nothing_to_resume_starts_anew(tmp_path):
    cfg = Config(dict(load_from=None, resume=True, work_dir=str(tmp_path)))
    check_run_checkpoints(cfg)
    assert cfg.load_from is None and not cfg.resume


def test_an_address_becomes_the_file_that_was_checked(save, monkeypatch, tmp_path):
    file, url = save(), 'https://example.org/epoch_1.pth'
    monkeypatch.setattr(run_checkpoints, 'download', lambda name: Path(file))
    monkeypatch.setattr('nemo_mmseg.utils.checkpoint.download', lambda name: Path(file))
    init = dict(type='Pretrained', checkpoint=url)
    cfg = Config(dict(load_from=url, model=dict(init_cfg=init), work_dir=str(tmp_path)))
    check_run_checkpoints(cfg)
    assert cfg.load_from == cfg.model.init_cfg.checkpoint == file
    save(weight=NAN)
    cfg.load_from = url
    with pytest.raises(ValueError, match=f'{url}: the tensor'):
        check_run_checkpoints(cfg)


def test_other_names_are_left_alone(tmp_path):
    init = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    cfg = Config(dict(model=dict(init_cfg=init), work_dir=str(tmp_path)))
    check_run_checkpoints(cfg)
    assert cfg.model.init_cfg.checkpoint == 'torchvision://resnet50'
    cfg.model.init_cfg.checkpoint = str(tmp_path / 'none.pth')
    with pytest.raises(FileNotFoundError, match='none.pth'):
        check_run_checkpoints(cfg)
