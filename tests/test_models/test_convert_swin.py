"""Names of Swin, and the order in which patches are merged."""

import runpy
from pathlib import Path

import pytest
import torch
from mmseg.models.utils.embed import PatchMerging

from nemo_mmseg.models.converters import swin
from nemo_mmseg.models.converters.rename import inverse, look_up, rename, translate

merge_patches = runpy.run_path(str(Path(__file__).with_name('published_lavt.py')))['merge_patches']


def test_patches_merge_as_published():
    torch.manual_seed(0)
    channels = 5
    published = {
        'norm.weight': torch.randn(4 * channels),
        'norm.bias': torch.randn(4 * channels),
        'reduction.weight': torch.randn(2 * channels, 4 * channels),
    }
    x = torch.randn(2, 6, 8, channels)
    expected = merge_patches({f'm.{n}': t for n, t in published.items()}, 'm', x)
    renamed = rename(
        {f'layers.1.downsample.{name}': tensor for name, tensor in published.items()},
        swin.TABLE,
        swin.LEFT_OUT,
        'Swin',
        swin.CHANGES,
    )
    ours = PatchMerging(channels, 2 * channels)
    ours.load_state_dict(
        {n.removeprefix('stages.1.downsample.'): t for n, t in renamed.state_dict.items()}
    )
    merged, size = ours(x.flatten(1, 2), (6, 8))
    assert size == (3, 4)
    torch.testing.assert_close(merged.reshape(expected.shape), expected)
    # the test would notice weights that are not reordered
    ours.load_state_dict(published)
    assert not torch.allclose(ours(x.flatten(1, 2), (6, 8))[0].reshape(expected.shape), expected)


def test_a_tensor_that_cannot_be_reordered_stays_to_be_found_wrong():
    odd, scalar = torch.zeros(2, 7), torch.tensor(1.0)
    assert swin.order_merging(odd) is odd and swin.order_merging(scalar) is scalar


@pytest.mark.parametrize(
    'published, ours',
    [
        ('patch_embed.proj.weight', 'patch_embed.projection.weight'),
        ('layers.2.blocks.17.mlp.fc1.bias', 'stages.2.blocks.17.ffn.layers.0.0.bias'),
        ('layers.2.blocks.17.mlp.fc2.bias', 'stages.2.blocks.17.ffn.layers.1.bias'),
        ('layers.0.blocks.1.attn.proj.weight', 'stages.0.blocks.1.attn.w_msa.proj.weight'),
        ('layers.0.blocks.1.attn.proj_x.weight', None),
        ('layers.x.downsample.norm.weight', None),
        ('xlayers.0.downsample.norm.weight', None),
    ],
)
def test_names_go_both_ways(published, ours):
    assert translate(swin.TABLE, published) == ours
    if ours is not None:
        assert translate(inverse(swin.TABLE), ours) == published


def test_the_most_precise_pattern_counts():
    patterns = {'a.{i}': 1, 'a.3.b': 2, 'a.3': 3, 'a': 4}
    found = {name: look_up(patterns, name) for name in ('a.3.b.w', 'a.3.w', 'a.12.b', 'a', 'ab')}
    assert [found[name] and found[name][0] for name in found] == [2, 3, 1, 4, None]
