"""Masked training: what is hidden, what is compared, and one step of both passes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from nemo_mmseg.engine.hooks import iteration_seed_hook
from nemo_mmseg.models.losses.soft_targets import soft_target_loss
from nemo_mmseg.models.utils.masking import (
    TokenVocabulary,
    hidden_patches,
    mask_images,
    mask_tokens,
)

THREE = ['red ring', 'left ring', 'the red one on the left']
TWO = ['ring', 'left']
MASKED = dict(patch_size=16, image_ratio=0.5, text_ratio=0.5)


@pytest.mark.parametrize('size, grid', [((64, 48), (4, 3)), ((50, 33), (4, 3)), ((7, 9), (1, 1))])
def test_whole_patches_are_hidden_those_at_the_border_cut(size, grid):
    torch.manual_seed(0)
    images = torch.randn(6, 3, *size) + 9
    noise = torch.rand(6, grid[0] * grid[1])
    masked = mask_images(images, hidden_patches(noise, 0.75), 16)
    kept = int(grid[0] * grid[1] * 0.25)
    for image, found, numbers in zip(images, masked, noise):
        expected = image.clone()
        smallest = set(numbers.argsort()[:kept].tolist())
        for y in range(size[0]):
            for x in range(size[1]):
                if (y // 16) * grid[1] + x // 16 not in smallest:
                    expected[:, y, x] = 0
        assert torch.equal(found, expected)


def test_images_are_hidden_differently_and_each_patch_as_often(build):
    model = build(train_cfg=dict(masked=dict(patch_size=16)))
    torch.manual_seed(0)
    hidden = model.masked.mask_images(torch.ones(2000, 3, 64, 64))[:, 0, ::16, ::16] == 0
    assert (hidden.flatten(1).sum(1) == 12).all()
    assert len(hidden.flatten(1).unique(dim=0)) > 1000  # of 1820
    assert (hidden.float().mean(0) - 0.75).abs().max() < 4 * (0.75 * 0.25 / 2000) ** 0.5


def test_tokens_are_drawn_by_the_published_shares(build):
    """[MASK] 0.12, a random id 0.015, unchanged the rest, of tokens that may be masked."""
    model = build(train_cfg=dict(masked=dict()))
    vocabulary = TokenVocabulary(filler=4, special=(1, 2), size=100)
    ids = torch.arange(1000, 1020).repeat(5000, 1)
    ids[:, 0], ids[:, 1] = 1, 2
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 15:] = False
    torch.manual_seed(0)
    found = model.masked.mask_tokens(ids, mask, vocabulary)
    assert torch.equal(found[:, :2], ids[:, :2]) and torch.equal(found[:, 15:], ids[:, 15:])
    found, ids = found[:, 2:15].numpy(), ids[:, 2:15].numpy()
    random = (found < 100) & (found != 4)
    assert ((found == ids) | (found == 4) | random).all()
    assert (found == 4).mean() == pytest.approx(0.12, abs=0.005)
    assert random.mean() == pytest.approx(0.015, abs=0.002)
    assert len(np.unique(found[random])) == 99
    np.testing.assert_allclose((found != ids).mean(0), 0.135, atol=0.02)


def test_a_ratio_of_0_hides_nothing_and_of_1_all():
    ids, mask = torch.tensor([[1, 7, 8, 2, 0]]), torch.tensor([[True] * 4 + [False]])
    vocabulary, noise = TokenVocabulary(4, (1, 2), 9), torch.tensor([[0.0, 0.0, 0.999, 0.0, 0.0]])
    arguments = (noise, torch.full_like(ids, 6))
    assert torch.equal(mask_tokens(ids, mask, vocabulary, 0.0, (0.8, 0.2), *arguments), ids)
    found = mask_tokens(ids, mask, vocabulary, 1.0, (0.8, 0.2), *arguments)
    assert found.tolist() == [[1, 4, 6, 2, 0]] and ids.tolist() == [[1, 7, 8, 2, 0]]


@pytest.mark.parametrize('weights', [None, (0.9, 1.1)])
def test_two_channels_are_a_weighted_cross_entropy_over_the_number_of_pixels(weights):
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(2, 3, 2, 4, 5))
    known = generator.random((3, 4, 5)) > 0.3
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (logits, targets))
    w = np.array(weights or (1, 1)).reshape(1, 2, 1, 1)
    expected = -(w * q * np.log(p)).sum(1)[known].sum() / known.sum()
    arguments = (torch.tensor(targets), torch.tensor(known), weights)
    found = soft_target_loss(torch.tensor(logits), *arguments)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    nothing = soft_target_loss(torch.tensor(logits), arguments[0], torch.zeros(3, 4, 5) > 0)
    assert nothing.item() == 0


def test_one_channel_is_a_binary_cross_entropy_and_the_target_stays():
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(2, 3, 1, 4, 5))
    p, q = (1 / (1 + np.exp(-x)) for x in (logits, targets))
    expected = -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean()
    ours, theirs = (torch.tensor(x, requires_grad=True) for x in (logits, targets))
    loss = soft_target_loss(ours, theirs, torch.ones(3, 4, 5) > 0)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    np.testing.assert_allclose(ours.grad, (p - q) / p.size, rtol=1e-9, atol=1e-12)
    assert theirs.grad is None


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(patch_size=0), 'patch_size must be 1 or more, not 0'),
        (dict(patch_size=16.5), 'patch_size must be 1 or more, not 16.5'),
        (dict(text_shares=0.8), 'text_shares must be two shares whose sum is at most 1'),
        (dict(image_ratio=75), 'image_ratio must be 0 to 1, not 75'),
        (dict(text_shares=(0.8, 0.3)), 'text_shares must be two shares whose sum is at most 1'),
        (dict(clean_weight=-1), 'clean_weight must be 0 to 1'),
        (dict(passes=3), 'passes must be 1 or 2, not 3'),
    ],
)
def test_values_out_of_range_are_named(build, wrong, message):
    with pytest.raises(ValueError, match=f'train_cfg.masked: {message}'.replace('(', r'\(')):
        build(train_cfg=dict(masked=wrong))
    with pytest.raises(TypeError, match='patchsize'):
        build(train_cfg=dict(masked=dict(patchsize=3)))


def double(model):
    """The network in training, in float64, but for its batch statistics."""
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def test_one_graph_has_the_gradients_of_two_backward_passes(build, sample):
    """Against a loop that runs the network twice, as published; four steps of both."""
    samples = [sample(THREE, gt=(64, 64)), sample(TWO, gt=(64, 64))]
    samples[0].gt_sem_seg.data[:, :, :8] = 255
    images = torch.randn(2, 3, 64, 64).double()
    model = double(build(train_cfg=dict(masked=dict(MASKED, clean_weight=0.3))))
    other = double(build())
    losses, _ = model.parse_losses(seeded(model, images, samples))
    losses.backward()

    torch.manual_seed(3)
    expressions = THREE + TWO
    ids, mask = other.text_encoder.tokenize(expressions)
    masked_images = model.masked.mask_images(images)
    masked_ids = model.masked.mask_tokens(ids, mask, other.text_encoder.token_vocabulary())
    assert not torch.equal(masked_ids, ids)
    clean = logits_of(other, images, ids, mask)
    gt = torch.cat([one.gt_sem_seg.data for one in samples])[:, ::4, ::4]
    known = gt != 255
    plain = F.binary_cross_entropy_with_logits(clean[:, 0][known], gt[known].double())
    (0.3 * plain).backward()
    q = clean.detach().sigmoid()
    masked = logits_of(other, masked_images, masked_ids, mask)
    soft = F.binary_cross_entropy_with_logits(masked[:, 0][known], q[:, 0][known])
    (0.7 * soft).backward()
    assert losses.item() == pytest.approx((0.3 * plain + 0.7 * soft).item(), rel=1e-6)
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-9, msg=name)


def seeded(model, images, samples):
    """The losses with the noise of seed 3."""
    torch.manual_seed(3)
    return model(images, samples, mode='loss')


def logits_of(model, images, ids, mask):
    """Logits of the three expressions of one image and the two of another, part by part."""
    text = model.text_encoder.encode(ids, mask).of_images([3, 2])
    return model.decode_head(*model.extract_feat(images, text)).logits


def test_running_statistics_are_those_of_whole_images(build, sample):
    """A network that is trained without masks meets the same plain batch."""
    samples = [sample(THREE, gt=(64, 64)), sample(TWO, gt=(64, 64))]
    images = torch.randn(2, 3, 64, 64)
    statistics = []
    for changes in ({}, dict(train_cfg=dict(masked=MASKED))):
        model = build(**changes).train()
        before = {name: value.clone() for name, value in model.named_buffers() if 'runn' in name}
        seeded(model, images, samples)
        seeded(model, images, samples)
        after = dict(model.named_buffers())
        assert before and all(not torch.equal(after[name], before[name]) for name in before)
        statistics.append({name: after[name] for name in before})
    for name, plain in statistics[0].items():
        torch.testing.assert_close(statistics[1][name], plain, msg=name)


def test_plain_augmentation_is_one_pass_on_the_masked_sample(build, sample):
    samples = [sample(THREE, gt=(64, 64)), sample(TWO, gt=(64, 64))]
    images = torch.randn(2, 3, 64, 64).double()
    model = double(build(train_cfg=dict(masked=dict(MASKED, passes=1))))
    found = seeded(model, images, samples)
    assert found.keys() == {'loss_ce', 'train_iou'}
    torch.manual_seed(3)
    ids, mask = model.text_encoder.tokenize(THREE + TWO)
    masked_images = model.masked.mask_images(images)
    ids = model.masked.mask_tokens(ids, mask, model.text_encoder.token_vocabulary())
    logits = logits_of(model, masked_images, ids, mask)
    gt = torch.cat([one.gt_sem_seg.data for one in samples])[:, ::4, ::4]
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], gt.double())
    assert found['loss_ce'].item() == pytest.approx(expected.item(), rel=1e-6)


def test_evaluation_hides_nothing(build, sample):
    images, samples = torch.randn(2, 3, 64, 64), [sample(THREE), sample(TWO)]
    plain, masked = build().eval(), build(train_cfg=dict(masked=dict())).eval()
    with torch.no_grad():
        assert torch.equal(plain(images, samples), masked(images, samples))


def step_data(first):
    """What a loader gives a train step."""
    generator = torch.Generator().manual_seed(first)
    inputs = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    torch.manual_seed(first)
    samples = [sample_of(TWO, gt=(64, 64)), sample_of(TWO, gt=(64, 64))]
    return dict(inputs=list(inputs), data_samples=samples)


def test_two_accumulated_steps_are_one_made_by_hand(build):
    model, other = (double(build(train_cfg=dict(masked=MASKED))) for _ in range(2))
    batches = [step_data(i) for i in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)
    for i, data in enumerate(batches):
        torch.manual_seed(10 + i)
        model.train_step(data, wrapper)
    for i, data in enumerate(batches):
        torch.manual_seed(10 + i)
        data = other.data_preprocessor(data, training=True)
        loss = other.loss(data['inputs'].double(), data['data_samples'])
        ((loss['loss_ce'] + loss['loss_masked']) / 2).backward()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        expected = theirs.detach() - 0.1 * theirs.grad
        torch.testing.assert_close(ours.detach(), expected, rtol=1e-5, atol=1e-8, msg=name)


RANK = """
import importlib.util, json, sys
import open_clip
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper

spec = importlib.util.spec_from_file_location('masked', sys.argv[2])
masked = importlib.util.module_from_spec(spec)
spec.loader.exec_module(masked)
with open(sys.argv[1]) as file:
    setting = json.load(file)
open_clip.add_model_config(setting['clip'])
torch.set_num_threads(1)
dist.init_process_group('gloo')
rank = dist.get_rank()
model = masked.double(masked.build_from(setting['config']))
ddp = MMDistributedDataParallel(model)
wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
data = masked.step_data(rank)
torch.manual_seed(20 + rank)
ddp.train_step(data, wrapper)
if rank == 0:
    torch.save(model.state_dict(), setting['target'])
dist.destroy_process_group()
"""


def build_from(config):
    """The network of a config, always the same."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model


def sample_of(expressions, gt):
    """A data sample with random ground truth."""
    mask = (torch.rand(len(expressions), *gt) > 0.6).to(torch.uint8)
    metainfo = dict(expressions=expressions)
    return SegDataSample(metainfo=metainfo, gt_sem_seg=PixelData(data=mask))


def run_two_ranks(config, tiny_clip, folder):
    """What a step of two processes makes of the weights."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    clip = str(Path(tiny_clip[1]).with_name(f'{tiny_clip[0]}.json'))
    setting = dict(config=config, clip=clip, target=str(folder / 'found.pt'))
    (folder / 'rank.py').write_text(RANK)
    (folder / 'setting.json').write_text(json.dumps(setting))
    command = [sys.executable, '-W', 'ignore', folder / 'rank.py', folder / 'setting.json']
    place = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    ranks = [
        subprocess.Popen(
            [*command, __file__],
            env=dict(os.environ, RANK=str(rank), LOCAL_RANK=str(rank), **place),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            printed, _ = rank.communicate(timeout=200)
            assert rank.returncode == 0, printed
    finally:
        for rank in ranks:
            rank.kill()
    return torch.load(folder / 'found.pt', weights_only=True)


@pytest.mark.slow
def test_two_processes_step_as_one_does_with_both_batches(cris_config, tiny_clip, tmp_path):
    """Every parameter is used in both passes of one backward pass, which DDP must bear."""
    config = {**cris_config, 'train_cfg': dict(masked=MASKED)}
    found = run_two_ranks(config, tiny_clip, tmp_path)
    model = double(build_from(config))
    for rank in range(2):
        data = step_data(rank)
        torch.manual_seed(20 + rank)
        data = model.data_preprocessor(data, training=True)
        loss = model.loss(data['inputs'].double(), data['data_samples'])
        ((loss['loss_ce'] + loss['loss_masked']) / 2).backward()
    for name, parameter in model.named_parameters():
        expected = parameter.detach() - 0.1 * parameter.grad
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-8, msg=name)


class IterationsOf:
    """A runner as far as IterationSeedHook looks at it."""

    seed, iter = 0, 7


def test_a_rank_draws_its_own_noise(build, monkeypatch):
    model = build(train_cfg=dict(masked=MASKED))
    drawn = []
    for rank in (0, 1, 0):
        monkeypatch.setattr(iteration_seed_hook, 'get_rank', lambda rank=rank: rank)
        iteration_seed_hook.IterationSeedHook().before_train_iter(IterationsOf, 0)
        drawn.append(model.masked.mask_images(torch.ones(4, 3, 64, 64)))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
