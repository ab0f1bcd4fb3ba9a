"""The commands of README and docs are read by the programs that they name."""

import argparse
import inspect
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from unittest.mock import patch

import click
import pytest
import setuptools
from doc_pages import PAGES, ROOT, commands, short
from mim.commands.install import cli as mim_install
from mim.commands.test import cli as mim_test
from mim.commands.train import cli as mim_train
from mmengine.config import Config
from mmseg.registry import MODELS
from packaging.requirements import Requirement
from torch.distributed.run import get_args_parser

from nemo_mmseg.utils.config import find_config

MIM = dict(train=mim_train, test=mim_test)
# What stands for a choice of the reader's, where a program knows the choices, and for a copy.
STAND_INS = {
    'METHOD': 'lavt',
    'work_dirs/exported/runtime.py': 'nemo_mmseg/deployment/runtime.py',
}


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


def understand(words: list[str]) -> None:
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
        understand_mim(*rest)
    elif starter == 'pip':
        assert rest[0] == 'install'
        understand_install(rest[1:])
    elif starter == 'make':
        understand_make(rest)
    else:
        understand_hf(rest)


def understand_mim(command: str, *arguments: str) -> None:
    """Read a command of mim, and what it hands on to a tool."""
    if command == 'install':
        understand_install(mim_install.make_context('install', [*arguments]).params['args'])
        return
    assert arguments[0] == 'nemo_mmseg'
    context = MIM[command].make_context(command, [*arguments])
    parse(f'tools/{command}.py', *unknown(context))


@cache
def extras() -> set[str]:
    """The extras of setup.py."""
    with patch.object(setuptools, 'setup') as setup:
        runpy.run_path(str(ROOT / 'setup.py'))
    return set(setup.call_args.kwargs['extras_require'])


@cache
def options_of_pip() -> list[str]:
    command = [sys.executable, '-m', 'pip', 'install', '--help']
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def understand_install(arguments: list[str]) -> None:
    """Check the options of `pip install`, and the extras of this package."""
    assert arguments
    for word in arguments:
        if word.startswith('-'):
            assert word in options_of_pip(), word
            continue
        # A path has no name: `.[x]` is this package.
        wanted = Requirement(re.sub(r'^\.(?=\[|$)', 'nemo-mmsegmentation', word))
        if wanted.name == 'nemo-mmsegmentation':
            assert wanted.extras <= extras(), word


def understand_make(arguments: list[str]) -> None:
    """Check that the Makefile has the targets, and lets the variables be set."""
    settings = [word.split('=')[0] for word in arguments if '=' in word]
    open_ones = re.findall(r'^(\w+) \?=', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert set(settings) <= set(open_ones)
    # A target that is missing is an error, also where nothing is run.
    subprocess.run(
        ['make', '--dry-run', *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )


def understand_hf(arguments: list[str]) -> None:
    """Let the Hugging Face hub's client read a command, which it does before it helps."""
    program = Path(sys.executable).with_name('hf')
    subprocess.run([program, *arguments, '--help'], check=True, stdout=subprocess.DEVNULL)


def unknown(context: click.Context) -> list[str]:
    """What mim hands on: the config, the checkpoint, and options that it does not know."""
    config, checkpoint = context.params['config'], context.params.get('checkpoint')
    return [config, *filter(None, [checkpoint]), *context.params['other_args']]


@pytest.mark.parametrize('page', PAGES, ids=short)
def test_commands_are_understood(page, tmp_path, monkeypatch):
    found = commands(page, tmp_path)
    monkeypatch.chdir(ROOT)
    for words in found:
        understand([STAND_INS.get(word, word) for word in words])


def test_links_of_ref_zom_lead_to_the_images_of_coco(tmp_path):
    commands(ROOT / 'docs' / 'ready_data.md', tmp_path)
    links = sorted((tmp_path / 'data' / 'coco' / 'trainval2014').iterdir())
    assert [link.name for link in links] == ['train2014.jpg', 'val2014.jpg']
    assert all(link.is_symlink() and link.is_file() for link in links)


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
