"""Train and test, run as a user runs them, on a toy network; and every program's help."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def run_tool(name: str, *arguments, cwd: Path, ok=True, launch=(), env=None) -> str:
    """Run a tool in a process of its own, or as a module `launch` says; what it printed."""
    done = subprocess.run(
        [sys.executable, *launch, TOOLS / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **(env or {})},
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def load_tool(name: str) -> dict:
    return runpy.run_path(str(TOOLS / name), run_name='tool')


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
@pytest.mark.parametrize('spelling', ['--local-rank=1', '--local_rank=1'])
def test_both_spellings_of_local_rank(tool, spelling, monkeypatch):
    arguments = ['config.py'] + (['weights.pth'] if tool == 'test.py' else [])
    monkeypatch.setattr(sys, 'argv', [tool, *arguments, spelling])
    assert load_tool(tool)['parse_args']().local_rank == 1


PROGRAMS = [
    path
    for folder in ('tools', 'projects', 'benchmarks')
    for path in sorted((TOOLS.parent / folder).rglob('*.py'))
    if '__main__' in path.read_text()
]


@pytest.mark.parametrize('tool', PROGRAMS, ids=lambda path: path.name)
def test_every_program_explains_itself(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [str(tool), '--help'])
    monkeypatch.setattr(sys, 'path', [str(tool.parent), *sys.path])  # as Python does for a script
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code in (0, None)
    assert 'usage:' in capsys.readouterr().out


@pytest.mark.slow
def test_train_resume_test(toy, tmp_path):
    # default work dir, named after the config
    run_tool('train.py', toy, '--resume', cwd=tmp_path)  # nothing to resume from yet: starts
    work_dir = tmp_path / 'work_dirs' / 'toy_config'
    assert (work_dir / 'epoch_1.pth').is_file()

    # continues its own checkpoint, which the originals alone cannot with today's PyTorch
    override = ['--cfg-options', 'train_cfg.max_epochs=2']
    printed = run_tool('train.py', toy, '--resume', *override, cwd=tmp_path)
    assert 'resumed epoch: 1' in printed
    assert 'Epoch(train) [2]' in printed and 'Epoch(train) [1]' not in printed

    printed = run_tool('test.py', toy, work_dir / 'epoch_2.pth', cwd=tmp_path)
    assert 'batches: 2' in printed


@pytest.mark.parametrize('content', [dict(weight=1), dict(meta={}), dict(meta=None), [1]])
def test_weights_alone_cannot_be_resumed(content, tmp_path):
    torch.save(content, tmp_path / 'converted.pth')
    with pytest.raises(ValueError, match='converted.pth holds no state of a training.*load_from='):
        load_tool('train.py')['set_resume'](Config(), str(tmp_path / 'converted.pth'))


def test_a_named_checkpoint_is_resumed(tmp_path):
    file = str(tmp_path / 'epoch_2.pth')
    torch.save(dict(meta=dict(epoch=2), state_dict={}), file)
    cfg = Config()
    load_tool('train.py')['set_resume'](cfg, file)
    assert cfg.resume and cfg.load_from == file


def test_weights_of_another_network_are_refused(toy, tmp_path, monkeypatch):
    torch.save(dict(state_dict=dict(foreign=torch.ones(1))), tmp_path / 'foreign.pth')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'argv', ['test.py', str(toy), 'foreign.pth'])
    with pytest.raises(ValueError, match='foreign.pth does not fit the network'):
        load_tool('test.py')['main']()


def test_configs_of_the_package_are_found_by_name(monkeypatch):
    name = 'cris_r50_8xb8-50e_refcoco-416x416'
    monkeypatch.setattr(sys, 'argv', ['train.py', name])
    tool = load_tool('train.py')
    cfg = tool['load_config'](tool['parse_args']())
    assert cfg.model.decode_head.type == 'CRISHead' and cfg.work_dir == f'work_dirs/{name}'


AT_EXIT = """
import atexit
import os


@atexit.register
def note():
    with open(os.environ['RANK'] + '.txt', 'a') as file:
        file.write('in it' if torch.distributed.is_initialized() else 'left')
"""


@pytest.mark.slow
def test_two_processes_without_a_gpu(toy, tmp_path):
    # a group that is not left can abort a process while it ends, one time in ten or so
    with open(tmp_path / 'toy_parts.py', 'a') as parts:
        parts.write(AT_EXIT)
    launch = ('-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone')
    env = dict(CUDA_VISIBLE_DEVICES='')
    arguments = [toy, '--launcher', 'pytorch', '--work-dir', tmp_path / 'two']
    printed = run_tool('train.py', *arguments, cwd=tmp_path, launch=launch, env=env)
    assert '[1/1]' in printed  # 4 items, 2 a batch, 2 processes: one iteration
    assert [(tmp_path / f'{rank}.txt').read_text() for rank in '01'] == ['left', 'left']
    arguments.insert(1, tmp_path / 'two' / 'epoch_1.pth')
    printed = run_tool('test.py', *arguments, cwd=tmp_path, launch=launch, env=env)
    assert 'batches: 2' in printed  # one batch of each process
    assert [(tmp_path / f'{rank}.txt').read_text() for rank in '01'] == ['leftleft'] * 2


@pytest.mark.parametrize(
    'tool, arguments, message',
    [
        ('train.py', ['missing.py'], 'missing.py is neither a config file nor'),
        ('train.py', ['CONFIG', '--resume', 'none.pth'], 'no checkpoint none.pth to resume from'),
        ('test.py', ['CONFIG', 'none.pth'], 'there is no checkpoint none.pth'),
    ],
)
def test_missing_files_are_named(tool, arguments, message, toy, tmp_path, monkeypatch):
    arguments = [str(toy) if argument == 'CONFIG' else argument for argument in arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    with pytest.raises(FileNotFoundError, match=message):
        load_tool(tool)['main']()
    assert not (tmp_path / 'work_dirs').exists()


def test_a_file_is_no_folder_for_drawings(toy, tmp_path, monkeypatch):
    for name in ('weights.pth', 'shown'):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'argv', ['test.py', str(toy), 'weights.pth', '--show-dir', 'shown'])
    with pytest.raises(NotADirectoryError, match='shown cannot be a folder'):
        load_tool('test.py')['main']()
    assert not (tmp_path / 'work_dirs').exists()


def test_resume_auto_keeps_initial_weights_when_there_is_nothing_to_resume(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='initial.pth'))
    load_tool('train.py')['set_resume'](cfg, 'auto')
    assert cfg.load_from == 'initial.pth' and not cfg.get('resume')
