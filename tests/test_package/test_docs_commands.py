"""The commands of README and docs are read by the programs that they name."""

import argparse
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import click
import pytest
from mim.commands.test import cli as mim_test
from mim.commands.train import cli as mim_train
from mmengine.config import Config
from mmseg.registry import MODELS
from torch.distributed.run import get_args_parser

from nemo_mmseg.utils.config import find_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / 'README.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'configs').glob('*/README.md')),
]
MIM = dict(train=mim_train, test=mim_test)
# What stands for a choice of the reader's, where a program knows the choices, and for a copy.
STAND_INS = {
    'METHOD': 'lavt',
    'work_dirs/exported/runtime.py': 'nemo_mmseg/deployment/runtime.py',
}
# `PORT=29501 bash ...`
SETTING = re.compile(r'[A-Z_]+=.*')


def commands(page: Path) -> list[list[str]]:
    """The commands of a page that start programs, word by word."""
    found = []
    for block in re.findall(r'```bash\n(.*?)```', page.read_text(), re.DOTALL):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            while words and SETTING.fullmatch(words[0]) and len(words) > 1:
                words.pop(0)
            words = [STAND_INS.get(word, word) for word in words]
            if words and words[0] in ('python', 'torchrun', 'srun', 'mim', 'bash'):
                found.append(words)
    return found


class Parsed(Exception):
    """The program has understood its command line."""


def parse(program: str, *arguments: str) -> None:
    """Run a program until it has read its command line."""
    understand = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        understand(self, *args, **kwargs)
        raise Parsed

    path = ROOT / program
    with (
        patch.object(argparse.ArgumentParser, 'parse_args', stop),
        patch.object(sys, 'argv', [program, *arguments]),
        patch.object(sys, 'path', [str(path.parent), *sys.path]),
        pytest.raises(Parsed),
    ):
        runpy.run_path(str(path), run_name='__main__')


def started_by(script: str, arguments: list[str], folder: Path) -> list[str]:
    """The command that a shell script ends with, of a torchrun and srun that only tell theirs."""
    for name in ('torchrun', 'srun'):
        (folder / name).write_text('#!/bin/sh\nprintf "%s\\n" "$(basename "$0")" "$@"\n')
        (folder / name).chmod(0o755)
    env = dict(os.environ, PATH=f'{folder}{os.pathsep}{os.environ["PATH"]}')
    command = ['bash', script, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=env, check=True, capture_output=True, text=True
    ).stdout.splitlines()


def understand(words: list[str], folder: Path) -> None:
    """Let a command be read by its program, and by the one that this starts."""
    starter, *rest = words
    if starter == 'python':
        parse(*rest)
    elif starter == 'torchrun':
        args = get_args_parser().parse_args(rest)
        parse(args.training_script, *args.training_script_args)
    elif starter == 'srun':
        start = rest.index('python') + 1
        parse(*rest[start + (rest[start] == '-u') :])
    elif starter == 'mim':
        command, package, *options = rest
        assert package == 'nemo_mmseg'
        context = MIM[command].make_context(command, [package, *options])
        parse(f'tools/{command}.py', *unknown(context))
    else:
        understand(started_by(rest[0], rest[1:], folder), folder)


def unknown(context: click.Context) -> list[str]:
    """What mim hands on: the config, the checkpoint, and options that it does not know."""
    config, checkpoint = context.params['config'], context.params.get('checkpoint')
    return [config, *filter(None, [checkpoint]), *context.params['other_args']]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(page):
        understand(words, tmp_path)


def takes(settings: dict, key: str) -> bool:
    """Whether a part of a network has an option, in its config or in its signature."""
    if key in settings:
        return True
    parts = inspect.getmro(MODELS.get(settings['type']))
    return any(key in inspect.signature(part.__init__).parameters for part in parts)


@pytest.mark.parametrize(
    'section, config',
    [
        ('LAVT', 'lavt_swin-base-w12_4xb8-40e_refcoco-480x480'),
        ('CRIS', 'cris_r50_8xb8-50e_refcoco-416x416'),
    ],
)
def test_keys_of_the_migration_tables_exist(section, config):
    text = (ROOT / 'docs' / 'migration.md').read_text()
    table = text.split(f'\n## {section}\n')[1].split('\n## ')[0]
    cfg = Config.fromfile(find_config(config))
    cells = [line.split('|')[2] for line in table.splitlines() if line.startswith('| `')]
    keys = re.findall(r'`([a-z_]+(?:\.[a-z_]+)+)`', ' '.join(cells))
    keys = [key for key in keys if not key.endswith('.py')]
    assert len(keys) > 10
    # Options of PyTorch and MMEngine that the configs leave at their defaults.
    defaults = {
        'train_dataloader.pin_memory',
        'optim_wrapper.optimizer.amsgrad',
        'optim_wrapper.clip_grad.max_norm',
    }
    for key in set(keys) - defaults:
        *parents, last = key.split('.')
        part = cfg
        for parent in parents:
            part = part[parent]
        assert last in part or (parents[0] == 'model' and takes(part, last)), key
