from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from nemo_mmseg.models.backbones.lavt_swin_transformer import LAVTSwinTransformer
from nemo_mmseg.models.structures import TextFeatures

init_default_scope('mmseg')


def make(**options):
    torch.manual_seed(0)
    settings = dict(embed_dims=8, depths=(2, 2, 2, 1), num_heads=(1, 1, 2, 2), window_size=4)
    settings.update(word_channels=6, drop_path_rate=0.0)
    network = LAVTSwinTransformer(**{**settings, **options})
    network.init_weights()
    return network


def make_text(rows):
    torch.manual_seed(1)
    mask = torch.arange(5) < torch.randint(2, 6, (rows, 1))
    return TextFeatures(torch.randn(rows, 5, 6), mask, None, torch.arange(rows), True)


def run(network, images, text):
    return network(network(images), text)


@pytest.mark.parametrize('size', [(64, 64), (96, 80), (70, 51), (36, 300)])
def test_any_image_size(size):
    # Not a multiple of patch, stride or window, and smaller than a window in the last stages.
    maps = run(make(), torch.randn(2, 3, *size), make_text(2))
    height, width = size
    for level, x in enumerate(maps):
        stride = 4 * 2**level
        expected = (-(-height // stride), -(-width // stride))
        assert x.shape == (2, 8 * 2**level, *expected) and x.isfinite().all()


def test_without_words_it_is_mmsegmentations_swin():
    """The stream of a network whose gates are shut is that of the plain Swin."""
    network = make().eval()
    for gate in network.gates:
        gate[2].weight.data.zero_()
    settings = dict(embed_dims=8, depths=(2, 2, 2, 1), num_heads=(1, 1, 2, 2), window_size=4)
    plain = MODELS.build(dict(type='SwinTransformer', drop_path_rate=0.0, **settings))
    plain.eval()  # returns None
    plain.load_state_dict(network.state_dict(), strict=False)
    seen = []
    for stage in network.stages:
        stage.blocks[-1].register_forward_hook(lambda module, args, output: seen.append(output))
    image = torch.randn(1, 3, 64, 64)
    run(network, image, make_text(1))
    stream = plain.patch_embed(image)
    for stage, ours in zip(plain.stages, seen):
        *stream, out, _ = stage(*stream)
        torch.testing.assert_close(ours, out)


def test_outputs_are_the_normalised_fusion_and_the_gated_sum_goes_on():
    network, kept = make().eval(), {}

    def keep(name):
        return lambda module, args, output: kept.update({name: (args, output)})

    for i in range(4):
        network.fusions[i].register_forward_hook(keep(f'fusion{i}'))
        if i < 3:
            network.gates[i].register_forward_hook(keep(f'gate{i}'))
            network.stages[i].downsample.register_forward_hook(keep(f'merge{i}'))
    maps = run(network, torch.randn(1, 3, 64, 64), make_text(1))
    for i in range(4):
        (x, *_), fused = kept[f'fusion{i}']
        norm = getattr(network, f'norm{i}')
        expected = F.layer_norm(fused, fused.shape[-1:], norm.weight, norm.bias)
        torch.testing.assert_close(maps[i].flatten(2).transpose(1, 2), expected)
        if i < 3:
            torch.testing.assert_close(kept[f'merge{i}'][0][0], x + kept[f'gate{i}'][1] * fused)


def test_the_first_stage_runs_once_per_image():
    network, rows = make().eval(), []
    for stage in network.stages[:2]:
        stage.blocks[-1].register_forward_hook(lambda module, args, out: rows.append(len(out)))
    encoded = network(torch.randn(2, 3, 64, 64))
    assert rows == [2]
    text = replace(make_text(5), image_index=torch.tensor([0, 0, 0, 1, 1]), one_to_one=False)
    maps = network(encoded, text)
    assert rows == [2, 5] and [len(x) for x in maps] == [5] * 4


def test_the_gate_of_the_last_stage_could_change_nothing():
    assert len(make().gates) == 3


def test_recomputed_activations_give_the_same_gradients():
    images, text = torch.randn(2, 3, 64, 64), make_text(2)
    gradients = []
    for with_cp in (False, True):
        network = make(with_cp=with_cp, drop_path_rate=0.5, fusion_drop=0.2).train()
        torch.manual_seed(3)
        sum(x.square().sum() for x in run(network, images, text)).backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_recomputing_runs_the_blocks_twice():
    network, calls = make(with_cp=True).train(), []
    for stage in network.stages[:2]:  # before and after the first words
        stage.blocks[0].norm1.register_forward_hook(lambda *args: calls.append(1))
    maps = run(network, torch.randn(1, 3, 64, 64), make_text(1))
    sum(x.sum() for x in maps).backward()
    assert len(calls) == 4


def test_initial_values():
    network = make(embed_dims=32, num_heads=(1, 2, 4, 8))
    # Swin's and the gates' layers: noise of 0.02, cut off at 2 (not 2 deviations)
    for weight in (network.stages[3].blocks[0].attn.w_msa.qkv.weight, network.gates[2][0].weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    table = network.stages[3].blocks[0].attn.w_msa.relative_position_bias_table
    assert table.std().item() == pytest.approx(0.02, rel=0.2)
    # the fusion: uniform up to 1 / sqrt(inputs), as PyTorch does
    visual = network.fusions[3].visual.weight
    assert visual.abs().max().item() == pytest.approx(256**-0.5, rel=0.02)
    assert network.fusions[3].visual.bias.abs().max() > 0


def test_gates_can_start_shut():
    network = make(gate_init='zero')
    assert not any(parameter.any() for parameter in network.gates.parameters())
    assert network.fusions[0].visual.weight.any()


def test_position_indices_are_not_stored():
    network = make()
    assert not [name for name in network.state_dict() if 'relative_position_index' in name]
    assert network.stages[0].blocks[0].attn.w_msa.relative_position_index.shape == (16, 16)


def test_bad_settings():
    with pytest.raises(ValueError, match='zip'):
        make(fusion_heads=(1, 1))
    with pytest.raises(KeyError, match='checkpoint'):
        make(init_cfg=dict(type='Xavier'))
    with pytest.raises(TypeError, match='use_abs_pos_embed'):
        make(use_abs_pos_embed=True)
    with pytest.raises(FileNotFoundError, match='no checkpoint missing.pth'):
        make(init_cfg=dict(type='Pretrained', checkpoint='missing.pth'))
    assert make().train() is not None
