"""TRIS's first stage: what a batch of expressions means to it, on one process and on two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import nemo_mmseg  # noqa: F401
from nemo_mmseg.models.decode_heads.tris_head import image_scores
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.utils.clip import load_clip, load_clip_tokenizer

TEXTS = ['red ring', 'the left', 'ring', 'left red ring', 'red', 'the ring left of it', 'a', 'it']


def tris_config(clip, **head):
    """Config of a tiny TRIS, stage 1, with a frozen CLIP."""
    part = dict(model=clip[0], pretrained=clip[1])
    return dict(
        type='ReferringSegmentor',
        data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=1),
        text_encoder=dict(type='OpenCLIPTextEncoder', context_length=12, **part),
        backbone=dict(type='OpenCLIPResNet', out_indices=(3,), attention_pool=False, **part),
        decode_head=dict(
            type='TRISHead', in_channels=256, sentence_channels=24, channels=16, **head
        ),
        aux_losses=[dict(type='CLIPCalibrationLoss', **part)],
        test_cfg=dict(protocol=dict(type='TRISProtocol')),
    )


def build_from(config):
    """The network in training, but for its batch statistics; float64."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def batch(first, last, negatives=2):
    """Images and samples of a fixed sequence."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(8, 3, 64, 64, generator=generator, dtype=torch.float64)
    samples = []
    for i in range(first, last):
        others = [TEXTS[(i + k + 1) % 8] for k in range(negatives)]
        meta = dict(expressions=[TEXTS[i]], ori_shape=(40, 50))
        if negatives:
            meta['negative_expressions'] = [others]
        samples.append(SegDataSample(metainfo=meta))
    return images[first:last], samples


def gradients_of(model, *args):
    losses = model(*args, mode='loss')
    loss = sum(value for name, value in losses.items() if 'loss' in name)
    loss.backward()
    return losses, {name: p.grad.clone() for name, p in model.named_parameters()}


RANK = """
import importlib.util, json, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

spec = importlib.util.spec_from_file_location('test_tris', sys.argv[2])
test_tris = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test_tris)
with open(sys.argv[1]) as file:
    setting = json.load(file)
import open_clip
open_clip.add_model_config(setting['clip'])
torch.set_num_threads(1)
dist.init_process_group('gloo')
rank = dist.get_rank()
model = DistributedDataParallel(test_tris.build_from(setting['config']))
losses, _ = test_tris.gradients_of(model, *test_tris.batch(4 * rank, 4 * rank + 4))
losses = {name: float(loss) for name, loss in losses.items()}
everyone = [None, None]
dist.all_gather_object(everyone, losses)

from nemo_mmseg.utils.dist import gather_rows
own = (torch.arange(2 + rank) + 10.0 * rank).requires_grad_()
rows, first = gather_rows(own[:, None])
(rows[:, 0] * torch.arange(1.0, 6.0) * (rank + 1)).sum().backward()
unequal = [None, None]
dist.all_gather_object(unequal, [rows[:, 0].tolist(), first, own.grad.tolist()])
if rank == 0:
    grads = {name: p.grad for name, p in model.module.named_parameters()}
    torch.save(dict(losses=everyone, grads=grads, unequal=unequal), setting['target'])
dist.destroy_process_group()
"""


@pytest.fixture
def two_ranks(tmp_path, tiny_clip):
    """What two processes of four images each compute."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    config = tris_config(tiny_clip, learn_temperature=True)
    clip = str(Path(tiny_clip[1]).with_name(f'{tiny_clip[0]}.json'))
    target = tmp_path / 'found.pt'
    setting = dict(config=config, clip=clip, target=str(target))
    (tmp_path / 'rank.py').write_text(RANK)
    (tmp_path / 'setting.json').write_text(json.dumps(setting))
    ranks = []
    for rank in range(2):
        environment = dict(os.environ, RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank))
        environment.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        command = [sys.executable, str(tmp_path / 'rank.py'), str(tmp_path / 'setting.json')]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        ranks.append(subprocess.Popen([*command, __file__], env=environment, **pipes))
    try:
        outputs = [process.communicate(timeout=300)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], '\n'.join(outputs)[-4000:]
    return torch.load(target, weights_only=True)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(two_ranks, tiny_clip):
    model = build_from(tris_config(tiny_clip, learn_temperature=True))
    losses, grads = gradients_of(model, *batch(0, 8))
    for name, loss in losses.items():
        mean = sum(one[name] for one in two_ranks['losses']) / 2
        assert mean == pytest.approx(loss.item(), rel=1e-12), name
    assert two_ranks['losses'][0] != two_ranks['losses'][1]
    assert two_ranks['grads'].keys() == grads.keys()
    for name, grad in two_ranks['grads'].items():
        torch.testing.assert_close(grad, grads[name], rtol=1e-9, atol=1e-11, msg=name)
    # and not what each process would compute with its own expressions alone
    apart = build_from(tris_config(tiny_clip, learn_temperature=True))
    for first in (0, 4):
        _, summed = gradients_of(apart, *batch(first, first + 4))
    name = 'decode_head.sentence_proj.weight'
    assert (summed[name] / 2 - grads[name]).norm() > 0.01 * grads[name].norm()
    # ranks with unequal numbers of rows; gradients are summed over the ranks
    rows = [0.0, 1.0, 10.0, 11.0, 12.0]
    assert two_ranks['unequal'] == [[rows, 0, [3.0, 6.0]], [rows, 2, [9.0, 12.0, 15.0]]]


def test_masked_training_in_two_passes_needs_masks(tiny_clip):
    for masked in (dict(passes=2), dict()):
        with pytest.raises(ValueError, match='TRISHead does not learn masks.*passes=1'):
            MODELS.build(dict(tris_config(tiny_clip), train_cfg=dict(masked=masked)))
    MODELS.build(dict(tris_config(tiny_clip), train_cfg=dict(masked=dict(passes=1))))


def test_a_batch_is_classified_by_its_own_expressions(tiny_clip):
    model = build_from(tris_config(tiny_clip))
    images, samples = batch(0, 3)
    samples[1].set_metainfo(dict(expressions=TEXTS[3:5], negative_expressions=[TEXTS[:2]] * 2))
    texts = [one for sample in samples for one in sample.expressions]
    text = model.text_encoder(texts).of_images([1, 2, 1])
    output = model.decode_head(*model.extract_feat(images, text))
    assert output.extras['scores'].shape == (4, 4, 2, 2)
    expected = [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert output.extras['target'].int().tolist() == expected
    for i in range(4):
        assert torch.equal(output.logits[i, 0], output.extras['scores'][i, i])
    # a batch of less meets less
    fewer = model.decode_head(*model.extract_feat(images[:1], model.text_encoder(texts[:1])))
    assert not torch.allclose(fewer.logits[0], output.logits[0], rtol=1e-3)


def test_scores_of_images_by_hand():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 3, 4, 5))
    found, area = image_scores(torch.from_numpy(scores))
    for image in range(2):
        cover = np.zeros(3)
        for y in range(4):
            for x in range(5):
                each = np.exp([1.0, *scores[image, :, y, x]])
                cover += each[1:] / each.sum() / 20
        maps = scores[image].reshape(3, -1)
        expected = maps.mean(1) + maps.max(1) + (1 - cover) ** 3 * np.log(0.01 + cover)
        np.testing.assert_allclose(area[image], cover, rtol=1e-12)
        np.testing.assert_allclose(found[image], expected, rtol=1e-12)


def test_alone_is_together_with_nobody(tiny_clip):
    model = build_from(tris_config(tiny_clip))
    images, samples = batch(0, 4)
    with torch.no_grad():
        alone = model.eval().encode_decode(images, samples)
        model.decode_head.alone = False
        single = [model.encode_decode(images[i : i + 1], samples[i : i + 1]) for i in range(4)]
        together = model.encode_decode(images, samples)
    torch.testing.assert_close(alone, torch.cat(single), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(alone, together, rtol=1e-3)


def test_the_temperature_learns_by_request(tiny_clip):
    fixed, learning = (
        build_from(tris_config(tiny_clip, learn_temperature=value)) for value in (False, True)
    )
    name = 'decode_head.logit_scale'
    assert fixed.state_dict().keys() == learning.state_dict().keys()
    assert float(fixed.state_dict()[name].exp()) == pytest.approx(1 / 0.07)
    assert name not in dict(fixed.named_parameters())
    _, grads = gradients_of(learning, *batch(0, 4))
    assert grads[name] != 0


@pytest.fixture
def calibration(tiny_clip):
    """Makes the loss, its frozen CLIP and what it is called with, for two images of 48 x 48."""

    def make(**changes):
        loss = dict(type='CLIPCalibrationLoss', model=tiny_clip[0], pretrained=tiny_clip[1])
        loss = MODELS.build({**loss, **changes}).double()
        text = TextFeatures(torch.empty(3, 1, 1), torch.ones(3, 1), None, torch.tensor([0, 0, 1]))
        torch.manual_seed(3)
        images = torch.randn(2, 3, 48, 48).double()
        logits = torch.randn(3, 1, 3, 3).double()
        return loss, images, logits, text

    return make


def corner_resize(x, size):
    """Bilinear from corner to corner, by numpy, (C, H, W)."""
    ys, xs = (np.linspace(0, n - 1, size) for n in x.shape[1:])
    rows = np.stack([[np.interp(xs, np.arange(x.shape[2]), row) for row in one] for one in x])
    return np.stack(
        [[np.interp(ys, np.arange(x.shape[1]), column) for column in one.T] for one in rows]
    ).transpose(0, 2, 1)


def test_calibration_by_hand(calibration, tiny_clip):
    loss, images, logits, text = calibration(positive_weight=3.0, negative_weight=5.0)
    # as large as the images, so that one resize is left
    logits = torch.nn.functional.interpolate(logits, (48, 48), mode='nearest')
    own, others = [['red ring', 'ring'], ['left']], [[['a', 'b'], ['left', 'c']], [['d', 'ring']]]
    samples = [
        SegDataSample(metainfo=dict(expressions=a, negative_expressions=b))
        for a, b in zip(own, others)
    ]
    found = loss(images, HeadOutput(logits), text, samples)

    clip, tokenize = load_clip(*tiny_clip).double(), load_clip_tokenizer(tiny_clip[0])
    near, far = [], []
    pairs = [(0, own[0][0], others[0][0]), (0, own[0][1], others[0][1]), (1, 'left', others[1][0])]
    for row, (image, said, wrong) in enumerate(pairs):
        mask = 1 / (1 + np.exp(-logits[row].numpy()))
        seen = corner_resize(mask, 64) * corner_resize(images[image].numpy(), 64)
        with torch.no_grad():
            vector = clip.encode_image(torch.from_numpy(seen)[None])[0].numpy()
            words = clip.encode_text(tokenize([said, *wrong])).numpy()
        cosine = words @ vector / np.linalg.norm(words, axis=1) / np.linalg.norm(vector)
        near.append(-np.log(np.clip(cosine[0], 1e-4, 1 - 1e-4)))
        far.append(-np.log(1 - cosine[1:]).mean())
    assert found.keys() == {'loss_calibration', 'loss_calibration_negative'}
    assert float(found['loss_calibration']) == pytest.approx(3 * np.mean(near), rel=1e-9)
    assert float(found['loss_calibration_negative']) == pytest.approx(5 * np.mean(far), rel=1e-9)


def test_bfloat16_does_not_round_the_cosines(calibration):
    loss, images, logits, text = calibration()
    said = [['red', 'ring'], ['left']]
    samples = [
        SegDataSample(metainfo=dict(expressions=one, negative_expressions=[['a', 'b']] * len(one)))
        for one in said
    ]
    loss = loss.float()
    with torch.autocast('cpu', torch.bfloat16):
        found = loss(images.float(), HeadOutput(logits.float()), text, samples)
    exact = loss(images.float(), HeadOutput(logits.float()), text, samples)
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1), name


def test_calibration_without_negatives(calibration):
    samples = [
        SegDataSample(metainfo=dict(expressions=['red', 'ring'], img_path='a.jpg')),
        SegDataSample(metainfo=dict(expressions=['left'], img_path='b.jpg')),
    ]
    loss, images, logits, text = calibration(negative_weight=0.0)
    assert loss(images, HeadOutput(logits), text, samples).keys() == {'loss_calibration'}
    loss, *_ = calibration()
    with pytest.raises(ValueError, match='a.jpg has no negative expressions: put SampleNegative'):
        loss(images, HeadOutput(logits), text, samples)


def test_what_is_cut_without_its_end_says_nothing(calibration):
    loss, *_ = calibration(max_tokens=6)
    long, other, short = loss.encode_text(['red ring left of it', 'a b c d e f g', 'red'])
    torch.testing.assert_close(long, other)
    whole, *_ = calibration()
    assert not torch.allclose(*whole.encode_text(['red ring left of it', 'a b c d e f g']))
    torch.testing.assert_close(whole.encode_text(['red'])[0], short)
