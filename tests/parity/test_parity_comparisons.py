"""The comparisons themselves: what they must not let pass, and the rule that draws weights."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture
def common(parity):
    return parity.common


def test_what_is_no_number_or_has_another_shape_fails(common):
    x = torch.arange(6.0)
    assert common.Comparison('', common.relative(x, x.numpy()), 0).holds
    assert common.relative(x * 1.001, x.numpy()) == pytest.approx(1e-3, rel=1e-4)
    assert not common.Comparison('', common.relative(x * float('nan'), x.numpy()), 1e9).holds
    assert not common.Comparison('', common.relative(x[:5], x.numpy()), 1e9).holds
    assert not common.Comparison('', common.relative(x, np.zeros(6)), 1e9).holds
    assert common.relative(0 * x, np.zeros(6)) == 0


def test_summaries_see_every_kind_of_change(common):
    torch.manual_seed(0)
    x = torch.randn(40, 30)
    stored = common.summarize(x)
    assert common.summary_difference(common.summarize(x.double()), stored)[0] < 1e-6

    def difference(changed, *parts):
        kept = {key: stored[key] for key in ('shape', 'std', *parts)}
        return common.summary_difference(common.summarize(changed), kept)[0]

    assert difference(x.T) == float('inf')
    assert difference(x + 0.01 * x.std(), 'mean') == pytest.approx(0.01, rel=1e-3)
    assert difference(1.01 * x) == pytest.approx(0.01, rel=1e-3)
    assert difference(1.01 * x, 'norm') == pytest.approx(0.01, rel=1e-3)
    assert difference(torch.cat([x[:2].flip(1), x[2:]]), 'head') > 1
    assert difference(torch.cat([x[:20], x[20:].flip(1)]), 'sample') > 0.9
    assert difference(torch.cat([x[:20], x[20:].flip(1)]), 'mean', 'norm', 'head') < 1e-6
    assert not difference(x * float('nan'), 'mean') < 1e9


def test_intermediate_results_cannot_be_forgotten(common):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with common.tapped(model, {'a': common.Tap('0'), 'b': common.Tap('0', of_input=True)}) as seen:
        model(torch.ones(2, 3))
    assert seen['a']['shape'] == (2, 4) and seen['b']['shape'] == (2, 3)
    assert not model[0]._forward_hooks
    stored = {**seen, 'c': seen['a'], 'd': seen['a']}
    found = list(common.compare_middle('run', seen, stored, 0.0, absent={'d': 'not ours'}))
    assert [one.holds for one in found] == [True, True, False]
    assert 'c is not computed' in found[-1].what


def test_stored_values_cannot_be_forgotten(common, tmp_path):
    np.savez(tmp_path / 'case.npz', a=1, b=2, c=3, seed=0)
    case = common.Case(tmp_path)
    case['a']
    (one,) = case.all_read({'b': 'no use'})
    assert not one.holds and one.what.endswith(' c seed') and one.difference == 2
    (one,) = case.all_read({}, ('a', 'x'))
    assert one.holds


def test_weights_follow_the_rule(parity):
    # variance 1 / fan-in of matrices and kernels, gains and variances near 1, other vectors near 0
    draw = parity.filling.draw
    kernel = draw('a.weight', (64, 32, 3, 3), 0)
    assert kernel.std() == pytest.approx(288**-0.5, rel=0.02)
    assert abs(kernel.mean()) < 2e-3
    gain, bias, variance = (draw(f'a.{n}', (999,), 0) for n in ('weight', 'bias', 'running_var'))
    assert gain.mean() == pytest.approx(1, abs=0.02) and gain.std() == pytest.approx(0.1, rel=0.1)
    assert abs(bias.mean()) < 0.01 and bias.std() == pytest.approx(0.05, rel=0.1)
    assert variance.min() >= 1 and variance.mean() == pytest.approx(1 + 0.08, abs=0.01)
    assert not np.allclose(kernel, draw('b.weight', (64, 32, 3, 3), 0))
    assert not np.allclose(kernel, draw('a.weight', (64, 32, 3, 3), 1))


@pytest.fixture
def tool(parity, monkeypatch):
    """Run check_parity.py in this process; its exit code."""
    program = runpy.run_path(str(Path(__file__).with_name('check_parity.py')))['main']

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['check_parity.py', *map(str, arguments)])
        return program()

    return run


def test_the_tool_refuses_cases_that_it_does_not_know(tool, tmp_path, capsys):
    (tmp_path / 'cris_r50').mkdir()
    for name, message in (
        ('lavt_swin_x', "no check for this case; known: ['c"),
        ('lavt_swin_b', 'no such folder'),
        ('cris_r50', 'there are no values in it'),
    ):
        with pytest.raises(SystemExit):
            tool(tmp_path / name)
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_tool_tells_by_its_exit_code(tool, cases, tmp_path, capsys):
    folder = tmp_path / 'lavt_swin_t'
    shutil.copytree(cases / 'lavt_swin_t', folder)
    stored = dict(np.load(folder / 'case.npz'))
    place = stored['feat_dbg_name'].tolist().index('stage1.gated')
    stored['feat_dbg_norm'][place] *= 1.001
    np.savez(folder / 'case.npz', **stored)
    assert tool(folder, '--only', 'features') == 1
    printed = capsys.readouterr().out
    assert 'FAIL feat stage1.gated norm: 0.001' in printed
    assert printed.count('FAIL') == 1 + 1  # where it is made, and as the worst of its kind
    assert printed.endswith('\n1 comparisons failed\n')
