"""CGFormer's masks by the inferencer: the same in every run, whatever is asked beside them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from nemo_mmseg.apis import ReferringInferencer, inference_model

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'refshapes'
NAME = 'cgformer_swin-tiny-w7_1xb4-300i_refphotos-192x192'
EXPRESSIONS = ['the red circle', 'a blue square', 'green']
WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] the a red blue green circle square'.split()


@pytest.fixture(scope='module')
def inferencer(tmp_path_factory):
    """A narrow network with random weights, by the shipped config, for images of 64x64."""
    folder = tmp_path_factory.mktemp('cgformer')
    (folder / 'vocab.txt').write_text('\n'.join(WORDS) + '\n')
    bert = dict(model_type='bert', vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1)
    bert.update(num_attention_heads=2, intermediate_size=32, max_position_embeddings=32)
    (folder / 'config.json').write_text(json.dumps(bert))
    cfg = Config.fromfile(CONFIGS / f'{NAME}.py')
    model = dict(
        text_encoder=dict(model=str(folder), pretrained=False),
        backbone=dict(
            embed_dims=16,
            depths=(1, 1, 1, 1),
            num_heads=(1, 2, 2, 4),
            word_channels=16,
            fusion_heads=(2, 2, 2, 2),
        ),
        decode_head=dict(
            in_channels=(16, 32, 64, 128), word_channels=16, channels=32, image_size=(64, 64)
        ),
    )
    cfg.merge_from_dict(dict(model=model))
    for transform in cfg.test_dataloader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.scale = (64, 64)
    init_default_scope('mmseg')
    torch.manual_seed(0)
    network = MODELS.build(cfg.model)
    network.init_weights()
    torch.save(dict(state_dict=network.state_dict()), folder / 'weights.pth')
    return ReferringInferencer(cfg, folder / 'weights.pth', device='cpu')


def test_masks_are_the_same_again_and_alone(inferencer):
    image = np.random.default_rng(0).integers(0, 256, (50, 83, 3), dtype=np.uint8)
    # A network that has learned nothing: half of the pixels are above the median.
    found = inference_model(inferencer.model, image, EXPRESSIONS)
    inferencer.model.protocol.threshold = found.seg_logits.data.median().item()
    masks = inferencer(image, EXPRESSIONS, draw=False)['masks']
    assert masks.shape == (3, 50, 83) and 0.3 < masks.mean() < 0.7
    np.testing.assert_array_equal(inferencer(image, EXPRESSIONS, draw=False)['masks'], masks)
    for expression, mask in zip(EXPRESSIONS, masks, strict=True):
        alone = inferencer(image, [expression], draw=False)['masks'][0]
        assert (alone != mask).mean() < 0.01  # rounding differs with the number of rows
