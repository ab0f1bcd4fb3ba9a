import open_clip
import pytest
import torch
from mmseg.registry import MODELS

from nemo_mmseg.models.backbones.open_clip_resnet import DenseAttentionPool, OpenCLIPResNet


def test_maps_are_those_of_open_clip(tiny_clip):
    clip = open_clip.create_model(tiny_clip[0], pretrained=tiny_clip[1]).eval()
    built = MODELS.build(dict(type='OpenCLIPResNet', model=tiny_clip[0], pretrained=tiny_clip[1]))
    built.init_weights()
    built.eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = built(images)
        expected = clip.visual.forward_intermediates(images, intermediates_only=True)
    for ours, theirs in zip(maps[:2], expected['image_intermediates'][2:4], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert tuple(m.shape[1] for m in maps) == built.out_channels
    assert maps[2].shape == (2, 24, 2, 3)


def test_dense_pool_against_plain_attention():
    """One head at a time, written out, on the grid of the table itself."""
    torch.manual_seed(0)
    pool = DenseAttentionPool(grid=3, channels=8, num_heads=2, out_channels=5).eval().double()
    x = torch.randn(1, 8, 3, 3, dtype=torch.float64)
    tokens = x[0].flatten(1).T + pool.positional_embedding[1:]
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        q, k, v = (p(tokens)[:, part] for p in (pool.q_proj, pool.k_proj, pool.v_proj))
        heads.append((q @ k.T / 2).softmax(-1) @ v)
    expected = pool.c_proj(torch.cat(heads, -1)).T.reshape(1, 5, 3, 3) + pool.connect(x)
    torch.testing.assert_close(pool(x), expected.relu())


def test_position_table_is_resized_bicubic_without_its_first_row():
    pool = DenseAttentionPool(grid=4, channels=2, num_heads=1, out_channels=2)
    table = torch.arange(16.0).reshape(4, 4)
    with torch.no_grad():
        pool.positional_embedding[0] = 1000
        pool.positional_embedding[1:] = table.reshape(16, 1)
    resized = pool.position(8, 5)[:, 0].reshape(1, 1, 8, 5)
    expected = torch.nn.functional.interpolate(table[None, None], (8, 5), mode='bicubic')
    torch.testing.assert_close(resized, expected)


@pytest.mark.parametrize('out_indices', [(3,), (0, 1, 2, 3)])
def test_plain_maps_without_an_attention_pool(tiny_clip, out_indices):
    clip = open_clip.create_model(tiny_clip[0], pretrained=tiny_clip[1]).eval()
    built = OpenCLIPResNet(*tiny_clip, out_indices=out_indices, attention_pool=False)
    built.init_weights()
    built.eval()
    images = torch.randn(2, 3, 64, 96)
    maps = built(images)
    with torch.no_grad():
        expected = clip.visual.forward_intermediates(images, intermediates_only=True)
    for ours, index in zip(maps, out_indices, strict=True):
        torch.testing.assert_close(ours, expected['image_intermediates'][index + 1])
    assert tuple(m.shape[1] for m in maps) == built.out_channels
    sum(m.sum() for m in maps).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


def test_bad_settings_are_clear_errors(tiny_clip, tmp_path):
    with pytest.raises(ValueError, match='not a CLIP ResNet'):
        OpenCLIPResNet('ViT-B-32')
    built = OpenCLIPResNet(tiny_clip[0], pretrained=str(tmp_path / 'gone.pt'))
    with pytest.raises(FileNotFoundError, match='gone.pt'):
        built.init_weights()
