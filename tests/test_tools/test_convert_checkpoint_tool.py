"""The command line: what it prints, what it writes, and one line for whatever is wrong."""

import argparse
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'model_converters' / 'convert_checkpoint.py'
lavt = SimpleNamespace(**runpy.run_path(str(ROOT / 'tests' / 'test_models' / 'published_lavt.py')))


@pytest.fixture
def folder(tmp_path):
    """A published checkpoint of a tiny LAVT and the config of the network that it fits."""
    torch.manual_seed(0)
    published = dict(lavt.published_lavt(), args=argparse.Namespace(lr=5e-5))
    torch.save(published, tmp_path / 'in.pth')
    Config(dict(model=lavt.our_model())).dump(tmp_path / 'tiny.py')
    (tmp_path / 'empty.py').write_text('work_dir = None\n')
    return tmp_path


@pytest.fixture
def main(monkeypatch):
    """Run the tool's main in this process; its exit code."""
    program = runpy.run_path(str(TOOL))['main']

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        return program()

    return run


def test_it_says_what_it_left_out_and_writes_the_rest(main, folder, capsys):
    out = folder / 'out.pth'
    assert main('lavt', folder / 'in.pth', out, '--config', folder / 'tiny.py') == 0
    lines = capsys.readouterr().out.splitlines()
    state = torch.load(out, weights_only=True)['state_dict']
    for line in (
        'left out 4: state of the training, no part of the network',
        '    args',
        "left out 4: computed from the window's size",
        '    backbone.layers.3.blocks.0.attn.relative_position_index',
        'left out 2: the last gate, whose result the network throws away',
        '    backbone.layers.3.res_gate.2.weight',
    ):
        assert line in lines
    names = [line for line in lines if line.startswith('    ')]
    assert len(names) == len(set(names)) == 10
    assert lines[-1] == (
        f'{len(state)} tensors written to {out}, 10 left out; it fits {folder / "tiny.py"}'
    )


def test_every_error_is_one_line(main, folder, capsys):
    (folder / 'cut.pth').write_bytes((folder / 'in.pth').read_bytes()[:3000])
    (folder / 'file').write_text('')
    (folder / 'syntax.py').write_text('model = dict(\n')
    (folder / 'raises.py').write_text('model = 1 / 0\n')
    (folder / 'number.py').write_text('model = 1\n')
    (folder / 'unknown.py').write_text("model = dict(type='NoSuchSegmentor')\n")
    assert (
        main('lavt', folder / 'in.pth', folder / 'ours.pth', *('--config', folder / 'tiny.py')) == 0
    )
    capsys.readouterr()
    before = sorted(os.listdir(folder))
    tiny = ('--config', folder / 'tiny.py')
    for args, expected in (
        (('lavt', 'in.pth', 'out.pth'), 'in.pth: the LAVT checkpoint does not fit any base model'),
        (('lavt_one', 'in.pth', 'out.pth', *tiny), "it is one for 'lavt'"),
        (('cris', 'in.pth', 'out.pth', *tiny), 'it holds argparse.Namespace'),
        (('lavt', 'cut.pth', 'out.pth', *tiny), 'cut.pth cannot be read as a checkpoint'),
        (('lavt', 'none.pth', 'out.pth', *tiny), 'there is no checkpoint'),
        (('lavt', 'in.pth', 'in.pth', *tiny), 'cannot be the file to write'),
        (('lavt', 'in.pth', 'file/out.pth', *tiny), 'file'),
        (('lavt', 'in.pth', 'out.pth', '--config', folder / 'empty.py'), 'empty.py has no model'),
        (('lavt', 'in.pth', 'out.pth', '--config', 'nothing'), 'nothing is neither'),
        (('lavt', 'in.pth', 'out.pth', '--config', folder / 'syntax.py'), 'syntax.py cannot be'),
        (('lavt', 'in.pth', 'out.pth', '--config', folder / 'raises.py'), 'raises.py cannot be'),
        (('lavt', 'in.pth', 'out.pth', '--config', folder / 'number.py'), 'number.py has no model'),
        (('lavt', 'in.pth', 'out.pth', '--config', folder / 'unknown.py'), 'NoSuchSegmentor'),
        (('lavt', 'ours.pth', 'out.pth', *tiny), "ours.pth: already converted, as 'lavt'"),
    ):
        method, source, target, *rest = args
        assert main(method, folder / source, folder / target, *rest) == 1, expected
        printed = capsys.readouterr()
        assert printed.out == '' and printed.err.count('\n') == 1, printed
        assert printed.err.startswith('convert_checkpoint: ') and expected in printed.err
        assert sorted(os.listdir(folder)) == before
    with pytest.raises(SystemExit):
        main('lisa', folder / 'in.pth', folder / 'out.pth')
