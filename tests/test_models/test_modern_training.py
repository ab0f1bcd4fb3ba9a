"""Distributed, accumulated and bfloat16 steps of tiny networks compute what plain ones do."""

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS, OPTIM_WRAPPERS
from mmseg.structures import SegDataSample
from torch import nn

runpy.run_path(str(Path(__file__).with_name('toys.py')))  # registers

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'red', 'left', 'ring']


@pytest.fixture
def lavt_config(tmp_path):
    """Config of a tiny LAVT."""
    (tmp_path / 'vocab.txt').write_text('\n'.join(WORDS) + '\n')
    bert = dict(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    return dict(
        type='ReferringSegmentor',
        data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=1),
        text_encoder=dict(
            type='BERTTextEncoder',
            model=str(tmp_path),
            context_length=8,
            pretrained=False,
            config=bert,
            frozen=('embeddings', 'encoder.layer.2'),
        ),
        backbone=dict(
            type='LAVTSwinTransformer',
            embed_dims=8,
            depths=(1, 2, 1, 1),
            num_heads=(1, 1, 2, 2),
            window_size=4,
            word_channels=16,
            drop_path_rate=0.0,
        ),
        decode_head=dict(type='LAVTHead', in_channels=(8, 16, 32, 64)),
        test_cfg=dict(protocol=dict(type='LAVTProtocol')),
    )


@pytest.fixture(params=['lavt', 'cris'])
def config(request):
    return request.getfixturevalue(f'{request.param}_config')


def build_from(config):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model.train()


def batch(first, last):
    """Images and samples of a fixed sequence; all masks are of one size.

    The losses are means over pixels, LAVT's by their classes' weights: only masks of one size weigh
    two halves of a batch alike.
    """
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(8, 3, 64, 64, generator=generator)
    samples = []
    for i in range(8):
        mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
        mask[0, 4 * i : 4 * i + 20, 8:40] = 1
        sample = SegDataSample(metainfo=dict(expressions=[['red ring', 'the left'][i % 2]]))
        sample.gt_sem_seg = PixelData(data=mask)
        samples.append(sample)
    return dict(inputs=images[first:last], data_samples=samples[first:last])


def without_batch_statistics(model):
    """Batch normalisation as in evaluation: what an image gives depends on itself alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def step(model, wrapper, *ranges):
    for first, last in ranges:
        with wrapper.optim_context(model):
            losses = model(**model.data_preprocessor(batch(first, last), True), mode='loss')
        wrapper.update_params(sum(v for k, v in losses.items() if 'loss' in k))


def test_two_accumulated_halves_are_one_batch(config):
    stepped = []
    for counts, ranges in [(1, [(0, 4)]), (2, [(0, 2), (2, 4)])]:
        model = without_batch_statistics(build_from(config))
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        wrapper = OptimWrapper(optimizer, accumulative_counts=counts)
        step(model, wrapper, *ranges)
        # a step of SGD with rate 1 is the gradient
        stepped.append({name: before[name] - p.detach() for name, p in model.named_parameters()})
    whole, halves = stepped
    assert any(change.abs().max() > 1e-4 for change in whole.values())
    for name in whole:
        torch.testing.assert_close(halves[name], whole[name], rtol=1e-3, atol=2e-5, msg=name)


RANK = """
import importlib.util, json, sys
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper

import nemo_mmseg

spec = importlib.util.spec_from_file_location('modern', sys.argv[2])
modern = importlib.util.module_from_spec(spec)
spec.loader.exec_module(modern)
with open(sys.argv[1]) as file:
    setting = json.load(file)
import open_clip
open_clip.add_model_config(setting['clip'])
torch.set_num_threads(1)
dist.init_process_group('gloo')
rank = dist.get_rank()


class Watching(OptimWrapper):
    def step(self, **kwargs):
        # CLIP's residual branches begin at 0, and have gradients from the second step on.
        self.zero, self.without = set(), getattr(self, 'without', set())
        for name, p in self.model.named_parameters():
            if p.requires_grad and p.grad is None:
                self.without.add(name)
            elif p.requires_grad and not p.grad.any():
                self.zero.add(name)
        super().step(**kwargs)


def train(config):
    model = modern.build_from(config)
    ddp = MMDistributedDataParallel(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    wrapper = Watching(optimizer)
    wrapper.model = model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    for number in range(2):
        first = 4 * number + 2 * rank
        loss = ddp.train_step(modern.batch(first, first + 2), wrapper)['loss']
        losses.append(float(loss))
    moved = [n for n, p in before.items() if not torch.equal(p, model.get_parameter(n))]
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    return dict(
        losses=losses,
        without=sorted(wrapper.without),
        zero=sorted(wrapper.zero),
        moved=sorted(set(moved) & set(frozen)),
        sums={n: p.detach().double().sum().item() for n, p in model.named_parameters()},
    )


report = {name: train(config) for name, config in setting['networks'].items()}
everyone = [None, None]
dist.all_gather_object(everyone, report)
if rank == 0:
    print('REPORT ' + json.dumps(everyone))
dist.destroy_process_group()
"""


def in_two_processes(tmp_path, networks, clip):
    """Train networks on two ranks; what each rank reports of each."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    (tmp_path / 'rank.py').write_text(RANK)
    (tmp_path / 'setting.json').write_text(json.dumps(dict(networks=networks, clip=clip)))
    ranks = []
    for rank in range(2):
        environment = dict(os.environ, RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank))
        environment.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), OMP_NUM_THREADS='1')
        command = [sys.executable, str(tmp_path / 'rank.py'), str(tmp_path / 'setting.json')]
        ranks.append(
            subprocess.Popen(
                [*command, __file__],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=480)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], '\n'.join(outputs)[-4000:]
    line = next(one for one in outputs[0].splitlines() if one.startswith('REPORT '))
    return json.loads(line.removeprefix('REPORT '))


@pytest.mark.slow
def test_two_ranks_need_no_search_for_unused_parameters(
    tmp_path, lavt_config, cris_config, tiny_clip
):
    teacher = dict(type='ToyTeacherLoss', model=tiny_clip[0], pretrained=tiny_clip[1])
    networks = {
        'lavt': lavt_config,
        'lavt with_cp': {**lavt_config, 'backbone': {**lavt_config['backbone'], 'with_cp': True}},
        'cris': cris_config,
        'cris with a teacher': {**cris_config, 'aux_losses': [teacher]},
    }
    clip = str(Path(tiny_clip[1]).with_name(f'{tiny_clip[0]}.json'))
    one, two = in_two_processes(tmp_path, networks, clip)
    for name in networks:
        for report in (one[name], two[name]):
            assert report['without'] == report['zero'] == report['moved'] == [], name
        assert one[name]['sums'] == two[name]['sums'], f'{name}: the ranks drift apart'
        assert one[name]['losses'] != two[name]['losses'], 'the ranks have the same images'
    assert one['cris with a teacher']['losses'] != one['cris']['losses']


def test_bfloat16_points_the_same_way(config, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'AVX512')
    found = []
    for kind in ('OptimWrapper', 'BFloat16OptimWrapper'):
        model = without_batch_statistics(build_from(config))
        wrapper = OPTIM_WRAPPERS.build(
            dict(type=kind, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
        )
        with wrapper.optim_context(model):
            losses = model(**batch(0, 4), mode='loss')
        loss = sum(value for name, value in losses.items() if 'loss' in name)
        assert loss.dtype == torch.float32, 'the loss itself is not rounded'
        loss.backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((loss.item(), torch.cat(grads)))
    (loss, gradient), (rough_loss, rough) = found
    assert rough_loss != loss and rough_loss == pytest.approx(loss, rel=0.02)
    assert rough.dtype == torch.float32 and rough.isfinite().all()
    assert torch.cosine_similarity(rough, gradient, dim=0) > 0.95
