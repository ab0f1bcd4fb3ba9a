"""CGFormer's head: who gets a pixel, what draws the mask, losses, noise, and its one size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from nemo_mmseg.models.decode_heads.cgformer_head import (
    CGFormerHead,
    CGFormerProjector,
    TokenGrouping,
    WordReader,
)
from nemo_mmseg.models.structures import HeadOutput, TextFeatures

init_default_scope('mmseg')
CHANNELS, WORDS = 8, 6
SIZE = (32, 64)


def make(**changes):
    torch.manual_seed(0)
    settings = dict(in_channels=(2, 3, 4, 5), word_channels=WORDS, channels=CHANNELS)
    return CGFormerHead(**settings, **{'image_size': SIZE, **changes}).double().eval()


def make_feats(rows, size=SIZE):
    torch.manual_seed(1)
    strides = (4, 8, 16, 32)
    return [
        torch.randn(rows, 2 + i, size[0] // stride, size[1] // stride).double()
        for i, stride in enumerate(strides)
    ]


def make_text(counts, seed=2):
    torch.manual_seed(seed)
    rows = sum(counts)
    mask = torch.arange(5) < torch.randint(1, 6, (rows, 1))
    text = TextFeatures(torch.randn(rows, 5, WORDS).double(), mask, None, torch.arange(rows), True)
    return text.of_images(counts)


def dense(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def layer_norm(layer, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def test_a_token_becomes_the_mean_of_the_pixels_that_resemble_it_most():
    torch.manual_seed(0)
    grouping = TokenGrouping(CHANNELS).double().eval()
    tokens, pixels = torch.randn(3, 2, CHANNELS).double(), torch.randn(3, 20, CHANNELS).double()
    noise = torch.randn(3, 2, 20).double()
    found, groups = grouping(tokens, pixels, noise)
    for e in range(3):
        seen = layer_norm(grouping.pixel_norm, pixels[e].numpy())
        query = dense(grouping.query, layer_norm(grouping.token_norm, tokens[e].numpy()))
        key, value = dense(grouping.key, seen), dense(grouping.value, seen)
        cosine = np.array(
            [[q @ k / np.linalg.norm(q) / np.linalg.norm(k) for k in key] for q in query]
        )
        first = (cosine + noise[e].numpy()).argmax(0) == 0
        np.testing.assert_array_equal(groups[e].detach().numpy(), [first, ~first])
        for token, own in enumerate((first, ~first)):
            # one more than there are pixels, so that no token without pixels divides by 0
            gathered = dense(grouping.out, value[own].sum(0) / (own.sum() + 1))
            x = layer_norm(grouping.norm, tokens[e, token].numpy() + gathered)
            expected = grouping.ffn(torch.from_numpy(x))
            torch.testing.assert_close(found[e, token], expected)


def test_only_the_object_token_reads_and_only_real_words():
    torch.manual_seed(0)
    reader = WordReader(CHANNELS, WORDS).double().eval()
    tokens, text = torch.randn(2, 2, CHANNELS).double(), make_text([1, 1])
    before = reader(tokens, text.words, text.mask)
    padded = text.words + 9 * (~text.mask)[..., None]
    assert not text.mask.all()
    torch.testing.assert_close(reader(tokens, padded, text.mask), before)
    others = reader(tokens, text.words.flip(0), text.mask.flip(0))
    torch.testing.assert_close(others[:, 0], before[:, 0])
    assert not torch.isclose(others[:, 1], before[:, 1]).any(dim=1).all()


def test_the_mask_head_is_a_padded_convolution_with_the_token():
    torch.manual_seed(0)
    projector = CGFormerProjector(CHANNELS).double().eval()
    x, token = torch.randn(2, CHANNELS, 5, 7).double(), torch.randn(2, CHANNELS).double()
    found = projector(x, token, make_text([1, 1]))
    for one, kernel, ours in zip(x, projector.token_proj(token), found, strict=True):
        y = F.interpolate(one[None], scale_factor=2, mode='bilinear')
        y = F.interpolate(projector.conv1(y), scale_factor=2, mode='bilinear')
        y = projector.conv3(projector.conv2(y))
        expected = F.conv2d(y, kernel[None, :-1, None, None], kernel[-1:], padding=1)
        torch.testing.assert_close(ours[None], expected)
    assert found.shape == (2, 1, 22, 30)


def test_expressions_share_what_their_image_gives():
    head, feats, text = make(), make_feats(2), make_text([3, 1])
    together = head(feats, text)
    index = torch.tensor([0, 0, 0, 1])
    alone = head([one[index] for one in feats], text.per_expression())
    assert together.logits.shape == (4, 1, *SIZE)
    torch.testing.assert_close(together.logits, alone.logits)
    for i, stride in enumerate((16, 8, 4)):
        group = together.extras[f'group{i}']
        assert group.shape == (4, SIZE[0] // stride, SIZE[1] // stride)
        assert set(group.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(group, alone.extras[f'group{i}'])


def test_evaluation_is_the_same_in_every_run_and_any_batch():
    head, feats, text = make(), make_feats(1), make_text([4])
    torch.manual_seed(3)
    state = torch.get_rng_state()
    logits = head(feats, text).logits
    assert torch.equal(torch.get_rng_state(), state), 'nothing was drawn'
    torch.manual_seed(4)
    assert torch.equal(head(feats, text).logits, logits)
    for i in range(4):
        one = TextFeatures(text.words[[i]], text.mask[[i]], None, torch.zeros(1).long(), True)
        torch.testing.assert_close(head(feats, one).logits, logits[[i]])
    again = make()
    assert torch.equal(again(feats, text).logits, logits), 'another process draws the same'
    assert not torch.equal(make(noise_seed=1)(feats, text).logits, logits)
    assert not [name for name in head.state_dict() if 'noise' in name]


@pytest.mark.parametrize('published', [False, True])
def test_noise_is_drawn_in_training_and_if_wanted_in_evaluation(published):
    head, feats, text = make(noise_seed=None if published else 0), make_feats(1), make_text([1])
    if not published:
        head.train()
        for module in head.modules():  # dropout and batch statistics apart
            if isinstance(module, (torch.nn.Dropout, torch.nn.BatchNorm2d)):
                module.eval()
    one, two = (head(feats, text).extras['group2'] for _ in range(2))
    assert not torch.equal(one, two)
    torch.manual_seed(5)
    one = head(feats, text).extras['group2']
    torch.manual_seed(5)
    two = head(feats, text).extras['group2']
    assert torch.equal(one, two), 'the seed of the run decides'


def test_noise_has_gumbels_distribution():
    head = make(image_size=(256, 256), noise_seed=7)
    noise = np.sort(head.noise2.flatten().numpy())
    share = (np.arange(len(noise)) + 0.5) / len(noise)
    # distribution function of the standard Gumbel distribution; 8,192 draws
    assert np.abs(np.exp(-np.exp(-noise)) - share).max() < 2 * len(noise) ** -0.5


@pytest.mark.parametrize('size', [(480, 470), (0, 64), (480,), (-16, 16)])
def test_sizes_without_whole_cells_are_refused_when_built(size):
    with pytest.raises(ValueError, match=r'CGFormerHead: image_size=\(.*\) must be .* of 16'):
        make(image_size=size)


@pytest.mark.parametrize('size', [(64, 64), (64, 32), (32, 96)])
def test_images_of_another_size_are_refused(size):
    pattern = rf'images are {size[0]}x{size[1]}, .* fit image_size=\(32, 64\) only'
    with pytest.raises(ValueError, match=pattern):
        make()(make_feats(1, size), make_text([1]))


def test_the_frame_of_the_padded_convolution_is_shrunk_into_the_mask():
    head, frames = make(), []
    head.projector.register_forward_hook(lambda *args: frames.append(args[-1]))
    with torch.no_grad():
        found = head(make_feats(1), make_text([1])).logits[0, 0].numpy()
    expected = frames[0][0, 0].numpy()
    assert expected.shape == (SIZE[0] + 2, SIZE[1] + 2)
    for axis, side in enumerate(SIZE):  # corners fall on corners
        at = np.arange(side) * (side + 1) / (side - 1)
        low = np.minimum(at.astype(int), side)
        part = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        expected = (1 - part) * expected.take(low, axis) + part * expected.take(low + 1, axis)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.ptp(found[[0, -1]]) < 1e-9 and np.ptp(found[:, [0, -1]]) < 1e-9


def test_losses_are_the_published_formulas():
    head = make()
    torch.manual_seed(0)
    gt = (torch.rand(3, *SIZE) > 0.7).to(torch.uint8)
    gt[0, :, :5] = 255
    logits = torch.randn(3, 1, *SIZE)
    groups = {
        f'group{i}': (torch.rand(3, SIZE[0] // s, SIZE[1] // s) > 0.5).float()
        for i, s in enumerate((16, 8, 4))
    }
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in gt]
    losses = head.loss(HeadOutput(logits, extras=groups), None, samples)

    def dice(x, mask):
        probability = 1 / (1 + np.exp(-x.astype(float)))
        found = []
        for p, m in zip(probability, mask):
            p, m = p[m != 255], m[m != 255].astype(float)
            found.append(1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1))
        return np.mean(found)

    x, mask = logits[:, 0].numpy(), gt.numpy()
    assert losses['loss_dice'].item() == pytest.approx(dice(x, mask), rel=1e-5)
    known = mask != 255
    p = 1 / (1 + np.exp(-x[known].astype(float)))
    bce = -np.where(mask[known] == 1, np.log(p), np.log(1 - p)).mean()
    assert losses['loss_ce'].item() == pytest.approx(bce, rel=1e-5)
    for i, (stride, weight) in enumerate(((16, 0.001), (8, 0.01), (4, 0.1))):
        cells = mask[:, ::stride, ::stride]  # the nearest pixel is the first of a cell
        expected = weight * dice(groups[f'group{i}'].numpy(), cells)
        assert losses[f'loss_group{i}'].item() == pytest.approx(expected, rel=1e-5)
    predicted = (1 / (1 + np.exp(-x)) >= 0.35) & known
    inter = (predicted & (mask == 1)).sum((1, 2))
    union = (predicted | (mask == 1)).sum((1, 2))
    assert losses['train_iou'].item() == pytest.approx(100 * (inter / union).mean(), rel=1e-5)


def test_the_choice_of_pixels_learns():
    head, feats, text = make().train(), make_feats(2), make_text([1, 1])
    output = head(feats, text)
    gt = torch.zeros(2, *SIZE, dtype=torch.uint8)
    gt[:, :, 32:] = 1
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in gt]
    losses = head.loss(output, text, samples)
    (losses['loss_group0'] + losses['loss_group2']).backward()
    # straight through the choice: to what was compared, and to the maps
    for layer in (head.groupings[0].query, head.groupings[1].key, head.fusions[0].conv1.conv):
        assert layer.weight.grad.abs().max() > 0
    assert head.groupings[0].tau.grad.item() == 0
