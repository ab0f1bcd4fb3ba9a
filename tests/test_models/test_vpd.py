"""VPD's parts: tokens, latents, cross-attention maps, what learns and what runs once per image."""

import copy
import sys
from dataclasses import replace

import pytest
import torch
from mmseg.registry import MODELS

from nemo_mmseg.models.structures import TextFeatures

CHANNELS, TOKENS = (32, 32, 32, 64), 8
START, END = 520, 521  # of the tiny CLIP's vocabulary
RED, LEFT, RING = 513, 516, 519


@pytest.fixture
def config(tiny_clip):
    clip = dict(model=tiny_clip[0], pretrained=tiny_clip[1])
    return dict(
        type='ReferringSegmentor',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3),
        text_encoder=dict(type='VPDTextEncoder', clip=clip, context_length=TOKENS),
        backbone=dict(type='VAEEncoder', block_channels=(32,) * 4, layers_per_block=1),
        neck=dict(type='VPDUNet', block_channels=CHANNELS, layers_per_block=1, word_channels=16),
        decode_head=dict(type='LAVTHead', in_channels=(32, 32 + TOKENS, 32 + TOKENS, 64)),
    )


@pytest.fixture
def vpd(config):
    torch.manual_seed(0)
    return MODELS.build(config)


def text_of(words, image_index):
    mask = torch.ones(words.shape[:2], dtype=torch.bool)
    return TextFeatures(words, mask, None, torch.tensor(image_index))


@pytest.fixture
def seen():
    """Latents of two images, and three expressions about them."""
    generator = torch.Generator().manual_seed(3)
    words = torch.randn(3, TOKENS, 16, generator=generator)
    return torch.randn(2, 4, 8, 16, generator=generator), text_of(words, [0, 0, 1])


def test_expressions_are_filled_up_with_end_tokens(vpd):
    long = ' '.join(['red left ring'] * 5)
    ids, mask = vpd.text_encoder.tokenize(['Red ring', '', long])
    assert ids.tolist() == [
        [START, RED, RING] + [END] * 5,
        [START] + [END] * 7,
        [START, RED, LEFT, RING, RED, LEFT, RING, END],
    ]
    assert mask.sum(1).tolist() == [4, 2, 8] and mask[0].tolist() == [True] * 4 + [False] * 4


def test_clip_is_frozen_and_in_no_checkpoint(vpd, tiny_clip):
    import open_clip

    encoder = vpd.text_encoder
    assert (encoder.gamma == 1e-4).all()
    torch.nn.init.normal_(encoder.gamma)
    names = {name.removeprefix('text_encoder.') for name in vpd.state_dict() if 'text' in name}
    layers = {f'adapter.{i}.{kind}' for i in (0, 2) for kind in ('weight', 'bias')}
    assert names == {'gamma', *layers}
    ids, mask = encoder.tokenize(['red ring', 'left'])
    words = encoder.encode(ids, mask).words
    # open_clip's features of the words, to which the adapter adds its share
    clip = open_clip.create_model(tiny_clip[0], pretrained=tiny_clip[1])
    with torch.no_grad():
        x = clip.token_embedding(ids) + clip.positional_embedding[:TOKENS]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:TOKENS, :TOKENS])
        expected = clip.ln_final(x)
        first, _, second = encoder.adapter
        hidden = expected @ first.weight.T + first.bias
        hidden = hidden / 2 * (1 + torch.erf(hidden / 2**0.5))
        expected = expected + encoder.gamma * (hidden @ second.weight.T + second.bias)
    torch.testing.assert_close(words, expected, atol=1e-5, rtol=1e-5)
    words.sum().backward()
    assert encoder.gamma.grad.abs().sum() > 0
    assert all(p.grad is None for p in encoder.clip.network.parameters())
    assert encoder.double().encode(ids, mask).words.dtype == torch.float64


def test_the_unet_computes_what_diffusers_computes(vpd, seen):
    from diffusers import UNet2DConditionModel

    latents, text = seen
    neck = vpd.neck.eval()
    theirs = UNet2DConditionModel(
        block_out_channels=CHANNELS, layers_per_block=1, cross_attention_dim=16
    ).eval()
    theirs.load_state_dict({**theirs.state_dict(), **neck.unet.state_dict()})
    kept = {}
    theirs.conv_norm_out.register_forward_pre_hook(lambda m, args: kept.update(fine=args[0]))
    with torch.no_grad():
        maps = neck(latents, text)
        theirs(latents[[0, 0, 1]], 1, text.words)
    torch.testing.assert_close(maps[0], kept['fine'], atol=1e-5, rtol=1e-4)
    shapes = [(3, 32, 8, 16), (3, 40, 4, 8), (3, 40, 2, 4), (3, 64, 1, 2)]
    assert [tuple(x.shape) for x in maps] == shapes


def attention(layer, words):
    """Cross-attention of a layer by hand, from what goes into it: (E, positions, T)."""
    queries, keys = layer['query'], layer['to_k'](words)
    shares = []
    for query, key in zip(queries.chunk(8, dim=-1), keys.chunk(8, dim=-1)):
        scores = torch.einsum('enc,etc->ent', query, key) / query.shape[-1] ** 0.5
        shares.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
    return torch.stack(shares).mean(0)


def test_appended_maps_are_the_mean_cross_attention_of_a_level(vpd, seen):
    latents, text = seen
    neck, layers = vpd.neck.eval(), {}
    for name, module in neck.unet.named_modules():
        if name.endswith('attn2'):
            layer = layers[name] = dict(to_k=module.to_k)
            module.to_q.register_forward_hook(
                lambda m, args, output, layer=layer: layer.update(query=output)
            )
    with torch.no_grad():
        maps = neck(latents, text)
        for level, (height, width) in ((1, (4, 8)), (2, (2, 4))):
            blocks = f'down_blocks.{level}.', f'up_blocks.{3 - level}.'
            used = [layer for name, layer in layers.items() if name.startswith(blocks)]
            assert len(used) == 1 + 2, 'one on the way down, two on the way up'
            mean = sum(attention(layer, text.words) for layer in used) / len(used)
            expected = mean.reshape(3, height, width, TOKENS).permute(0, 3, 1, 2)
            torch.testing.assert_close(maps[level][:, -TOKENS:], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps[1][:, -TOKENS:].sum(1), torch.ones(3, 4, 8))


def test_appended_maps_carry_no_gradient(vpd, seen):
    latents, text = seen
    latents.requires_grad_()
    finest, second, *_ = vpd.neck.train()(latents, text)
    (gradient,) = torch.autograd.grad(second[:, -TOKENS:].sum(), latents, retain_graph=True)
    assert not gradient.any()
    (gradient,) = torch.autograd.grad(second[:, :-TOKENS].sum(), latents)
    assert gradient.any()


def test_recomputed_activations_change_nothing_and_leave_nothing(config, vpd, seen):
    latents, text = seen
    torch.manual_seed(0)
    kept = MODELS.build(dict(config['neck'], with_cp=False)).train()
    recomputed = copy.deepcopy(vpd.neck).train()
    recomputed.load_state_dict(kept.state_dict())
    gradients = []
    for neck in (kept, recomputed):
        maps = neck(latents, text)
        sum(x.square().mean() for x in maps).backward()
        gradients.append([parameter.grad for parameter in neck.parameters()])
        neck.zero_grad()
    torch.testing.assert_close(gradients[0], gradients[1])
    # what the backward pass computed again is not in the maps of the next pass
    for ours, again in zip(kept(latents, text), recomputed(latents, text)):
        torch.testing.assert_close(ours, again)


def test_latents_are_the_unscaled_mean_of_the_posterior(vpd):
    from diffusers import AutoencoderKL

    images = torch.rand(2, 3, 64, 128) * 2 - 1
    theirs = AutoencoderKL(
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4,
    ).eval()
    theirs.load_state_dict({**theirs.state_dict(), **vpd.backbone.vae.state_dict()})
    with torch.no_grad():
        latents = vpd.backbone.train()(images)
        moments = theirs.quant_conv(theirs.encoder(images))
    assert latents.shape == (2, 4, 8, 16)
    torch.testing.assert_close(latents, moments[:, :4])
    assert not any(parameter.requires_grad for parameter in vpd.backbone.parameters())


def test_an_image_is_encoded_once_for_all_its_expressions(vpd, sample):
    seven = ['red ring', 'left', 'ring', 'red', 'left ring', 'the red one', 'the left one']
    vpd.chunk_size = 3
    encoded = []
    vpd.backbone.register_forward_hook(lambda module, args, output: encoded.extend(args[0]))
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    meta = dict(ori_shape=(48, 40), img_shape=(64, 64))
    with torch.no_grad():
        found = vpd.eval().predict(images, [sample(seven, **meta), sample(['left'], **meta)])
    assert [len(one.pred_sem_seg.data) for one in found] == [7, 1]
    assert len(encoded) == 2


def test_images_that_do_not_fit_are_refused(config, vpd):
    with pytest.raises(ValueError, match='image_size 500x512 is not admitted.*multiples of 64'):
        MODELS.build(dict(config['backbone'], image_size=(500, 512)))
    MODELS.build(dict(config['backbone'], image_size=(512, 448)))
    with pytest.raises(ValueError, match='an image of 96x64 is not admitted'):
        vpd.backbone(torch.zeros(1, 3, 96, 64))


@pytest.mark.parametrize('part', ['backbone', 'neck'])
def test_diffusers_is_asked_for_when_it_is_missing(config, part, monkeypatch):
    monkeypatch.setitem(sys.modules, 'diffusers', None)
    with pytest.raises(ImportError, match=r'needs diffusers.*nemo-mmsegmentation\[diffusion\]'):
        MODELS.build(config[part])


def test_wrong_lengths_are_refused(config):
    for length in (2, 33):
        with pytest.raises(ValueError, match=f'must be 3 to 32 .*, not {length}'):
            MODELS.build(dict(config['text_encoder'], context_length=length))


def test_words_and_tokens_that_do_not_fit_are_named(config, vpd, seen):
    latents, text = seen
    with pytest.raises(ValueError, match='word_channels=16, but .* words of 8 channels'):
        vpd.neck(latents, replace(text, words=text.words[..., :8]))
    maps = vpd.neck(latents, replace(text, words=text.words[:, :-1], mask=text.mask[:, :-1]))
    with pytest.raises(ValueError, match=r'in_channels=\(32, 40, 40, 64\), .* \(32, 39, 39, 64\)'):
        vpd.decode_head(maps, text)
