"""A CLIP of a few thousand weights with a vocabulary of its own, and a CRIS built on it."""

import gzip
import json

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import nemo_mmseg  # noqa: F401

MERGES = ['r e', 're d</w>', 'l e', 'le f', 'lef t</w>', 'r i', 'ri n', 'rin g</w>']
VOCABULARY = 512 + len(MERGES) + 2
CONTEXT = 32


@pytest.fixture(scope='session')
def tiny_clip(tmp_path_factory):
    """Name of an open_clip model with 522 tokens, and a file with weights for it."""
    import open_clip

    init_default_scope('mmseg')
    folder = tmp_path_factory.mktemp('clip')
    with gzip.open(folder / 'bpe.txt.gz', 'wt') as file:
        file.write('\n'.join(['#version', *MERGES]))
    config = dict(
        embed_dim=24,
        vision_cfg=dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=64),
        text_cfg=dict(
            context_length=CONTEXT,
            vocab_size=VOCABULARY,
            width=16,
            heads=2,
            layers=2,
            tokenizer_kwargs=dict(bpe_path=str(folder / 'bpe.txt.gz')),
        ),
    )
    (folder / 'TestTinyCLIP.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder / 'TestTinyCLIP.json')
    torch.manual_seed(7)
    weights = open_clip.create_model('TestTinyCLIP').state_dict()
    torch.save(weights, folder / 'weights.pt')
    return 'TestTinyCLIP', str(folder / 'weights.pt')


@pytest.fixture
def cris_config(tiny_clip):
    """Config of a tiny CRIS."""
    clip = dict(model=tiny_clip[0], pretrained=tiny_clip[1])
    return dict(
        type='ReferringSegmentor',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, size_divisor=32
        ),
        text_encoder=dict(type='OpenCLIPTextEncoder', context_length=12, **clip),
        backbone=dict(type='OpenCLIPResNet', **clip),
        neck=dict(
            type='CRISNeck', in_channels=[64, 128, 24], sentence_channels=24, channels=[16, 24, 32]
        ),
        decode_head=dict(
            type='CRISHead',
            in_channels=24,
            word_channels=16,
            sentence_channels=24,
            num_layers=2,
            num_heads=2,
            feedforward_channels=48,
            dropout=0.0,
        ),
    )


@pytest.fixture
def build(cris_config):
    """Build the tiny CRIS, always the same, with changes to the top level of its config."""

    def make(**changes):
        torch.manual_seed(0)
        model = MODELS.build({**cris_config, **changes})
        model.init_weights()
        return model

    return make


@pytest.fixture
def sample():
    """Make a data sample with expressions and, for a size, random ground truth."""

    def make(expressions, gt=None, **meta):
        made = SegDataSample(metainfo=dict(expressions=list(expressions), **meta))
        if gt is not None:
            mask = torch.rand(len(expressions), *gt) > 0.6
            made.gt_sem_seg = PixelData(data=mask.to(torch.uint8))
        return made

    return make
