"""Swin without language computes what MMSegmentation's does, from the published weights."""

import runpy
from pathlib import Path

import pytest
import torch
from mmseg.models.backbones import SwinTransformer

from nemo_mmseg.models.backbones.plain_swin_transformer import PlainSwinTransformer
from nemo_mmseg.models.utils.swin_weights import load_swin_weights

published_swin = runpy.run_path(str(Path(__file__).with_name('published_lavt.py')))[
    'published_swin'
]
SIZE = dict(embed=8, depths=(2, 2, 1, 1), heads=(1, 2, 2, 4), window=3)


def settings(**changes):
    names = dict(embed='embed_dims', depths='depths', heads='num_heads', window='window_size')
    return {**{names[key]: value for key, value in SIZE.items()}, **changes}


@pytest.mark.parametrize('size', [(64, 64), (70, 51)])
def test_maps_are_those_of_mmsegmentation(tmp_path, size):
    torch.manual_seed(0)
    torch.save(dict(model=published_swin(**SIZE)), tmp_path / 'swin.pth')
    ours = PlainSwinTransformer(**settings(pretrained=str(tmp_path / 'swin.pth')))
    ours.init_weights()
    theirs = SwinTransformer(**settings())
    theirs.eval()  # returns None
    load_swin_weights(theirs, tmp_path / 'swin.pth')
    images = torch.randn(2, 3, *size)
    found, expected = ours.eval()(images), theirs(images)
    assert [x.shape[1] for x in found] == [8, 16, 32, 64]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_recomputed_activations_give_the_same_gradients():
    images, gradients = torch.randn(1, 3, 48, 48), []
    for with_cp in (False, True):
        torch.manual_seed(1)
        network = PlainSwinTransformer(**settings(with_cp=with_cp, drop_path_rate=0.5)).train()
        torch.manual_seed(2)
        sum(x.square().sum() for x in network(images)).backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_what_follows_from_the_window_is_not_stored():
    names = PlainSwinTransformer(**settings()).state_dict()
    assert not [name for name in names if 'relative_position_index' in name]
