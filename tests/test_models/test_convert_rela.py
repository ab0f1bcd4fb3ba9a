"""ReLA's checkpoints: what is read, what is left out, and what is refused by name."""

import pytest
import torch

from nemo_mmseg.models.converters.convert import (
    base_models,
    convert_checkpoint,
    parameter_shapes,
)
from nemo_mmseg.models.converters.converter import CONVERTERS
from nemo_mmseg.models.converters.rename import inverse, translate

TINY, BASE = 'rela_swin-tiny-w7', 'rela_swin-base-w12'


@pytest.fixture(scope='module')
def published():
    """Make a checkpoint of a size, as detectron2 writes it, without its memory."""
    models = base_models(CONVERTERS['rela'])
    back = inverse(CONVERTERS['rela'].table)

    def make(name=TINY):
        shapes = parameter_shapes(models[name])
        weights = {
            translate(back, ours): torch.empty(shape, device='meta')
            for ours, shape in shapes.items()
        }
        return dict(model=weights, optimizer=dict(state={}), scheduler=dict(), iteration=149999)

    return make


@pytest.mark.parametrize('name, entries, parameters', [
    (TINY, 744, 162_560_575), (BASE, 912, 225_521_469),
])  # fmt: skip
def test_the_published_size_is_found(published, name, entries, parameters):
    checkpoint = published(name)
    depths = (2, 2, 6, 2) if name == TINY else (2, 2, 18, 2)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            index = f'backbone.layers.{stage}.blocks.{block}.attn.relative_position_index'
            checkpoint['model'][index] = torch.zeros(1, dtype=torch.long)
    assert len(checkpoint['model']) == entries
    converted = convert_checkpoint('rela', checkpoint)
    assert converted.model == name
    assert sum(tensor.numel() for tensor in converted.state_dict.values()) == parameters
    reasons = {**converted.left_out}
    assert reasons.pop('iteration') == reasons.pop('optimizer') == reasons.pop('scheduler')
    assert set(reasons.values()) == {"computed from the window's size"}


def test_parts_have_the_published_numbers_of_parameters():
    shapes = parameter_shapes(base_models(CONVERTERS['rela'])[TINY])
    counts = {}
    for name, shape in shapes.items():
        part = name.split('.')[0]
        counts[part] = counts.get(part, 0) + torch.Size(shape).numel()
    assert counts == dict(
        backbone=33_261_690, neck=5_421_504, decode_head=14_985_733, text_encoder=108_891_648
    )


def test_position_ids_of_an_older_bert_are_left_out(published):
    checkpoint = published()
    checkpoint['model']['text_encoder.embeddings.position_ids'] = torch.arange(512)[None]
    left_out = convert_checkpoint('rela', checkpoint).left_out
    assert left_out['text_encoder.embeddings.position_ids'] == 'the numbers 0, 1, 2 ...'


def test_another_size_and_another_method_are_named(published):
    checkpoint = published()
    weight = checkpoint['model'].pop('sem_seg_head.predictor.lang_weight')
    message = f'nearest is {TINY}: 1 missing tensor: sem_seg_head.predictor.lang_weight'
    with pytest.raises(ValueError, match=message):
        convert_checkpoint('rela', checkpoint)
    checkpoint['model']['sem_seg_head.predictor.lang_weight'] = weight
    base = base_models(CONVERTERS['rela'])[BASE]
    message = r'ReLA checkpoint does not fit the model: .*backbone.patch_embed.proj.weight is \(96,'
    with pytest.raises(ValueError, match=message):
        convert_checkpoint('rela', checkpoint, base)
    for other in ('lavt_one', 'cris'):
        with pytest.raises(ValueError, match=r"\(it is one for 'rela'\)"):
            convert_checkpoint(other, checkpoint)
    # ReLA on a ResNet-50 was published, too, and is no network of ours
    checkpoint['model']['backbone.stem.conv1.weight'] = torch.empty(64, 3, 7, 7, device='meta')
    with pytest.raises(ValueError, match='not a ReLA checkpoint: 1 unknown tensor: backbone.stem'):
        convert_checkpoint('rela', checkpoint)
