"""The smallest network of each kind, with random weights and without a hub."""

from functools import cache
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from nemo_mmseg.models.converters.convert import parameter_shapes

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
PARTS = ('text_encoder', 'backbone', 'neck', 'decode_head')
SIZE = (64, 64)
VOCABULARY = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'red', 'left', 'ring', 'one']


def kind_of(model):
    """The classes of a network and their options that are words or switches.

    Networks of one kind differ in numbers, lists and weights.
    """
    kind = []
    for part in PARTS:
        config = dict(model.get(part, {}))
        kind += [config.pop('type')] if config else []
        kind += [
            f'{name}={value}'
            for name, value in sorted(config.items())
            if isinstance(value, (str, bool)) and name not in ('model', 'pretrained')
        ]
    return '-'.join(kind)


@cache
def networks():
    """Kind of a network -> the base models of it."""
    found = {}
    for path in sorted((CONFIGS / '_base_' / 'models').glob('*.py')):
        model = Config.fromfile(path).model
        if model.type == 'ReferringSegmentor':
            found.setdefault(kind_of(model), []).append(path)
    return found


def smallest(paths):
    """The config of the base model with the fewest parameters."""
    sizes = {}
    for path in paths:
        try:
            shapes = parameter_shapes(Config.fromfile(path).model)
        except ImportError:  # of a package with weights
            continue
        sizes[path] = sum(torch.Size(shape).numel() for shape in shapes.values())
    return Config.fromfile(min(sizes, key=sizes.get)).model


def small_config(name, vocabulary):
    """The smallest network of a kind, whose BERT reads its vocabulary from a folder."""
    (vocabulary / 'vocab.txt').write_text('\n'.join(VOCABULARY))
    model = smallest(networks()[name])
    for part in PARTS:
        if 'pretrained' in model.get(part, {}):
            model[part].pretrained = None
    if 'image_size' in model.decode_head:  # tables of a fixed size
        model.decode_head.image_size = SIZE
    if model.text_encoder.type.endswith('BERTTextEncoder'):
        model.text_encoder.pretrained = False
        if model.text_encoder.config is not None:
            model.text_encoder.model = str(vocabulary)
    return model


def small_network(model, seed):
    """Build a network of :func:`small_config`."""
    init_default_scope('mmseg')
    torch.manual_seed(seed)
    network = MODELS.build(model)
    network.init_weights()
    return network


def shallow(network, layers=3):
    """Cut every sequence of like layers; make parameters matter that start at zero.

    Swin keeps a plain and a shifted block in each stage, ReLA's head a layer for each map.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and name in ('layer', 'blocks', 'layers'):
                setattr(module, name, child[:layers])
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter.data, std=0.1)
    return network
