"""Hooks that report mosaics, seed iterations, convert kernels and choose a precision."""

import platform
from types import SimpleNamespace

import pytest
import torch
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from mmseg.registry import HOOKS, OPTIM_WRAPPERS
from mmseg.structures import SegDataSample
from torch import nn

import nemo_mmseg  # noqa: F401


def samples(*mosaics):
    return [SegDataSample(metainfo={} if m is None else dict(mosaic=m)) for m in mosaics]


def test_mosaic_statistics_count_kinds_and_bands():
    hook = HOOKS.build(dict(type='MosaicStatisticsHook'))
    runner = SimpleNamespace(message_hub=MessageHub.get_instance('test_mosaic_statistics'))
    mined = dict(kind='mined', num_filled=0, truncated=False)
    batches = [
        samples(
            None,
            mined,
            dict(mined, num_filled=2),
            dict(kind='random', num_filled=0, truncated=False),
        ),
        samples(None, None, dict(mined, truncated=True), mined),
    ]
    for batch in batches:
        hook.after_train_iter(runner, 0, dict(data_samples=batch))
    expected = dict(mined=0.5, random=0.125, mixed=0.0, num_filled=0.25, truncated=0.25)
    assert hook.shares() == expected
    assert runner.message_hub.get_scalar('train/mosaic/mined').current() == 0.5
    mixed = SegDataSample(metainfo=dict(mixed=dict(kind='CutMix', img_path='a.jpg')))
    hook.after_train_iter(runner, 0, dict(data_samples=[mixed] * 2))
    assert hook.shares() == {**expected, 'mined': 0.4, 'random': 0.1, 'mixed': 0.2}
    assert runner.message_hub.get_scalar('train/mosaic/mixed').current() == 0.2


def test_iteration_seed_repeats_an_iteration_and_nothing_else():
    hook = HOOKS.build(dict(type='IterationSeedHook'))

    def draw(seed, iteration):
        hook.before_train_iter(SimpleNamespace(seed=seed, iter=iteration), 0)
        return torch.rand(4).tolist()

    first = draw(0, 5)
    assert draw(0, 5) == first
    others = [draw(s, i) for s in range(3) for i in range(20) if (s, i) != (0, 5)]
    assert first not in others and len({tuple(o) for o in others}) == len(others)


def test_channels_last_converts_the_kernels_and_not_the_values():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    before = [p.clone() for p in model.parameters()]
    HOOKS.build(dict(type='ChannelsLastHook')).before_run(SimpleNamespace(model=model))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model(torch.rand(2, 3, 9, 9)).is_contiguous(memory_format=torch.channels_last)
    for old, new in zip(before, model.parameters()):
        assert torch.equal(old, new)


@pytest.mark.skipif(get_device() != 'cpu', reason='about CPUs')
@pytest.mark.parametrize(
    ('kind', 'cpu', 'dtype'),
    [
        ('BFloat16OptimWrapper', 'AVX512', torch.bfloat16),
        ('BFloat16OptimWrapper', 'AVX2', torch.float32),
        ('OptimWrapper', 'AVX512', torch.float32),
    ],
)
def test_bfloat16_is_used_in_the_forward_pass_only(kind, cpu, dtype, monkeypatch):
    monkeypatch.setattr(platform, 'machine', lambda: 'x86_64')
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: cpu)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(dict(type=kind, optimizer=optimizer))
    with wrapper.optim_context(model):
        out = model(torch.rand(2, 4))
    assert out.dtype == dtype
    wrapper.update_params(out.float().sum())
    assert model.weight.dtype == torch.float32 and model.weight.grad is None


def test_loops_without_half_precision_are_left_alone():
    loop = SimpleNamespace()
    hook = HOOKS.build(dict(type='CPUPrecisionHook'))
    hook.before_val(SimpleNamespace(val_loop=loop))
    hook.before_test(SimpleNamespace(test_loop=loop))
    assert not vars(loop)


class DtypeOfTest(nn.Module):
    """A network of a runner that keeps the types of what it computes in a test."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(2, 2), []

    def test_step(self, data):
        self.seen.append(self.layer(torch.ones(1, 2)).dtype)
        return [SegDataSample()]


class NoMetric(BaseMetric):
    """A metric that reads nothing."""

    def process(self, data_batch, data_samples):
        """Keep nothing."""

    def compute_metrics(self, results):
        """Return nothing."""
        return {}


@pytest.mark.skipif(get_device() != 'cpu', reason='about CPUs')
@pytest.mark.parametrize(('cpu', 'dtype'), [('AVX512', torch.bfloat16), ('AVX2', torch.float32)])
@pytest.mark.parametrize('kind', ['val', 'test'])
def test_half_precision_is_for_cpus_that_have_it(kind, cpu, dtype, monkeypatch, tmp_path):
    monkeypatch.setattr(platform, 'machine', lambda: 'x86_64')
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: cpu)
    model = DtypeOfTest()
    model.val_step = model.test_step
    loader = torch.utils.data.DataLoader([0, 1])
    runner = Runner(
        model,
        str(tmp_path),
        default_hooks=dict(precision=dict(type='CPUPrecisionHook')),
        default_scope='mmseg',
        **{
            f'{kind}_dataloader': loader,
            f'{kind}_cfg': dict(fp16=True),
            f'{kind}_evaluator': Evaluator(NoMetric()),
        },
    )
    getattr(runner, kind)()
    assert model.seen == [dtype] * 2
