"""ReLA's parts: what regions see, what they are trained with, and what stays as it starts."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from nemo_mmseg.models.decode_heads.rela_head import ReLAHead, minimap_of
from nemo_mmseg.models.decode_heads.rela_layers import LanguageAttention, RegionLayer
from nemo_mmseg.models.losses.targets import no_target_of
from nemo_mmseg.models.necks.rela_pixel_decoder import ReLAPixelDecoder
from nemo_mmseg.models.structures import HeadOutput, TextFeatures

init_default_scope('mmseg')
SIZES = [(16, 24), (8, 12), (4, 6), (2, 3)]


def make_head(**options):
    torch.manual_seed(0)
    sizes = dict(channels=32, word_channels=6, num_layers=4, num_heads=4, feedforward_channels=16)
    return ReLAHead(**{**sizes, **options}).double().eval()


def make_feats(rows, channels=32):
    torch.manual_seed(1)
    return [torch.randn(rows, channels, *size).double() for size in SIZES]


def make_text(rows, words=5):
    torch.manual_seed(2)
    mask = torch.arange(words).expand(rows, -1) < 3
    return TextFeatures(torch.randn(rows, words, 6).double(), mask, None, torch.arange(rows), True)


def sample(mask, **meta):
    return SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=mask[None]))


def test_output_is_what_the_contract_says():
    head, text = make_head(), make_text(2)
    with torch.no_grad():
        output = head(make_feats(2), text)
    assert output.logits.shape == (2, 2, 16, 24) and output.no_target.shape == (2,)
    assert output.extras['minimap'].shape == (2, 2, 10, 10)
    logits = output.extras['no_target_logits']
    assert torch.equal(output.no_target, logits[:, 1] - logits[:, 0])


def test_a_region_sees_only_what_it_may():
    torch.manual_seed(0)
    layer = RegionLayer(8, 2, 16).double().eval()
    regions, place = torch.randn(1, 3, 8).double(), torch.randn(3, 8).double()
    pixels, position = torch.randn(1, 5, 8).double(), torch.randn(5, 8).double()
    words = torch.zeros(1, 2, 6).double()
    seen = []
    layer.image_norm.register_forward_hook(lambda module, args, result: seen.append(result[0]))
    # region 0 may see pixel 3 alone, region 1 all, region 2 none
    forbidden = torch.ones(1, 3, 5, dtype=torch.bool)
    forbidden[0, 0, 3], forbidden[0, 1] = False, False
    other = pixels.clone()
    other[0, :3] += 1
    with torch.no_grad():
        for given, mask in ((pixels, forbidden), (other, forbidden), (pixels, forbidden & False)):
            layer(regions, place, given, position, mask, words)
    plain, changed, everywhere = seen
    assert torch.equal(plain[0], changed[0]) and not torch.allclose(plain[0], everywhere[0])
    assert not torch.allclose(plain[1], changed[1])
    # one that may see nothing sees everything
    torch.testing.assert_close(plain[1:], everywhere[1:])


def test_regions_must_not_look_where_their_own_mask_is_below_one_half():
    head, feats = make_head(), make_feats(1)
    regions = torch.randn(1, 100, 32).double()
    with torch.no_grad():
        kernels = head.mask_embed(head.norm(regions))
        forbidden = head.forbidden(regions, feats[0], (16, 24))
        logits = kernels[0] @ feats[0].flatten(2)[0]
    assert forbidden.shape == (1, 100, 16 * 24)
    assert torch.equal(forbidden[0], logits < 0) and 0.3 < forbidden.float().mean() < 0.7


def test_at_most_a_tenth_of_the_language_is_added():
    torch.manual_seed(0)
    language = LanguageAttention(8, 2, 6).double()
    regions, words = torch.randn(2, 3, 8).double(), torch.randn(2, 4, 6).double()
    torch.nn.init.normal_(language.proj.weight)
    with torch.no_grad():
        found = language.attention(regions, language.proj(words), language.proj(words))[0]
        normed = language.norm(regions + found)
        for value, share in ((0.0, 0.05), (-1e9, 0.0), (1e9, 0.1)):
            language.weight.fill_(value)
            torch.testing.assert_close(language(regions, words), regions + share * normed)


def test_words_are_read_in_the_first_layer_and_so_is_the_padding():
    head, feats, text = make_head(), make_feats(1), make_text(1)
    readers = [layer.language is not None for layer in head.layers]
    assert readers == [True, False, False, False]
    torch.nn.init.normal_(head.layers[0].language.proj.weight)
    with torch.no_grad():
        before = head(feats, text).logits
        text.words[:, 3:] += 1  # where the mask is False
        assert not torch.allclose(head(feats, text).logits, before)


def test_the_minimap_counts_cells_whose_middle_is_foreground():
    rng = np.random.default_rng(0)
    gt = torch.from_numpy(rng.random((2, 40, 60)) < 0.9).long()
    gt[1, :8, :12] = 255
    found = minimap_of(gt, 10).numpy()
    for e, i, j in np.ndindex(found.shape):
        # 4 x 6 pixels a cell, and its middle is where four of them meet
        four = gt[e, 4 * i + 1 : 4 * i + 3, 6 * j + 2 : 6 * j + 4].numpy()
        expected = 255 if (four == 255).any() else int((four == 1).all())
        assert found[e, i, j] == expected
    assert 0.4 < (found == 1).mean() < 0.9 and (found == 255).sum() == 4


def cross_entropy(logits, gt):
    """Weighted mean over all entries, logits (E, 2, ...), by NumPy."""
    logits, gt = logits.detach().double().numpy(), gt.numpy()
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    nll = -np.where(gt == 1, log[:, 1], log[:, 0])
    weight = np.where(gt == 1, 1.1, 0.9) * (gt != 255)
    return (nll * weight).sum() / weight.sum()


def test_losses_are_three_weighted_means():
    head, text = make_head(), make_text(2)
    torch.manual_seed(3)
    masks = (torch.rand(2, 16, 24) > 0.3).to(torch.uint8)
    masks[1] = 0  # no target
    masks[0, :4] = 255
    output = head(make_feats(2), text)
    losses = head.loss(output, text, [sample(mask) for mask in masks])
    expected = dict(
        loss_mask=5 * cross_entropy(output.logits, masks),
        loss_minimap=cross_entropy(output.extras['minimap'], minimap_of(masks, 10)) / 2,
        loss_no_target=cross_entropy(output.extras['no_target_logits'], torch.tensor([0, 1])) / 2,
    )
    assert losses.keys() == {*expected, 'train_iou'}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-5), name


def test_the_number_of_targets_says_what_has_none():
    empty, some = torch.zeros(4, 5).byte(), torch.ones(4, 5).byte()
    # an object can vanish by stretching and still be a target
    rows = [sample(empty), sample(some), sample(empty, num_targets=[2])]
    rows += [sample(empty, num_targets=[0]), sample(255 * some)]
    assert no_target_of(rows).tolist() == [True, False, False, True, True]


def test_pixel_decoder_keeps_sizes_and_float32():
    torch.manual_seed(0)
    neck = ReLAPixelDecoder((8, 16, 24, 32), 32, num_layers=1, num_heads=4, feedforward_channels=8)
    feats = [torch.randn(2, 8 * (i + 1), *size) for i, size in enumerate(SIZES)]
    with torch.no_grad():
        expected = neck(feats)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found = neck([feat.bfloat16().float() for feat in feats])
    assert [tuple(x.shape) for x in found] == [(2, 32, *size) for size in SIZES]
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        # as far off as the rounding of what came in
        assert (ours - exact).norm() < 0.02 * exact.norm()


def test_gates_that_start_at_zero_never_move():
    torch.manual_seed(0)
    settings = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=4)
    config = dict(type='LAVTSwinTransformer', word_channels=6, gate_init='zero', **settings)
    backbone = MODELS.build(config)
    backbone.init_weights()
    text = TextFeatures(torch.randn(1, 3, 6), torch.ones(1, 3).bool(), None, torch.arange(1), True)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-3, weight_decay=0.05)
    image = torch.randn(1, 3, 64, 64)
    before = backbone.norm0.weight.clone()
    for _ in range(3):
        optimizer.zero_grad()
        sum(x.square().sum() + x.sum() for x in backbone(backbone(image), text)).backward()
        optimizer.step()
    assert all(not parameter.any() for parameter in backbone.gates.parameters())
    assert not torch.equal(backbone.norm0.weight, before)


def test_word_fusion_on_a_plain_swin_is_lavts_with_gates_of_zero():
    torch.manual_seed(0)
    settings = dict(
        embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=4, drop_path_rate=0.0
    )
    lavt = MODELS.build(
        dict(type='LAVTSwinTransformer', word_channels=6, gate_init='zero', **settings)
    )
    lavt.init_weights()
    plain = dict(type='SwinTransformer', **settings)
    fused = MODELS.build(
        dict(type='WordFusedBackbone', backbone=plain, channels=(8, 16, 32, 64), word_channels=6)
    )
    fused.load_state_dict(as_word_fused(lavt.state_dict(), fused.state_dict()))
    text = TextFeatures(
        torch.randn(3, 4, 6), torch.arange(4) < torch.tensor([[4], [2], [3]]), None,
        torch.tensor([0, 0, 1]),
    )  # fmt: skip
    # Swin's own output norms would come before the fusion
    for i in range(4):
        setattr(fused.backbone, f'norm{i}', torch.nn.Identity())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found, wanted = (one(one(image), text) for one in (fused.eval(), lavt.eval()))
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def as_word_fused(state, wanted):
    """The weights of LAVT's Swin under the names of a fused one."""
    renamed = {}
    for name in wanted:
        part, _, rest = name.partition('.')
        if part == 'norms':
            i, _, rest = rest.partition('.')
            renamed[name] = state[f'norm{i}.{rest}']
        elif part == 'fusions':
            renamed[name] = state[name]
        else:
            renamed[name] = state.get(rest, wanted[name])
    return renamed


def test_rows_of_a_batch_do_not_meet():
    head, feats, text = make_head(), make_feats(2), make_text(2)
    with torch.no_grad():
        together = head(feats, text)
        alone = [
            head(
                [feat[i : i + 1] for feat in feats],
                TextFeatures(text.words[i : i + 1], text.mask[i : i + 1], None, torch.arange(1)),
            )
            for i in range(2)
        ]
    joined = HeadOutput.cat(alone)
    torch.testing.assert_close(together.logits, joined.logits)
    torch.testing.assert_close(together.no_target, joined.no_target)
