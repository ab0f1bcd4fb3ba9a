"""CARIS's published names and ours."""

from __future__ import annotations

import argparse

import torch

from . import swin
from .converter import Converter, register
from .lavt import bert_left_out, bert_table
from .rename import preceded

SWIN = 'backbone.vis_encoder.'
BERT = 'backbone.lang_encoder.'
PROMPTS = 'backbone.conditional_prompts.'
DECODER = 'pixel_decoder.'

# Published, maps are counted from the coarsest (0) to the finest (2), ours the other way round.
LEVELS = {f'{DECODER}input_convs.{i}': f'neck.levels.{2 - i}' for i in range(3)}

ATTENTIONS = {
    'v2l_cross_attn': 'token_pixel_attention',
    'lang_self_attn': 'token_attention',
    'l2v_cross_attn': 'pixel_token_attention',
}
PROJECTIONS = {'q_proj': 'query', 'k_proj': 'key', 'v_proj': 'value', 'out_proj': 'out'}

LAYER = {
    **{
        f'{attention}.{published}': f'{name}.{ours}'
        for attention, name in ATTENTIONS.items()
        for published, ours in PROJECTIONS.items()
    },
    'vis_self_attn': 'pixel_layer.attention',
    **{
        f'{side}_mlp.fc{k}': f'{ours}.{2 * (k - 1)}'
        for side, ours in (('lang', 'token_ffn'), ('vis', 'pixel_layer.ffn'))
        for k in (1, 2)
    },
    # The published norms of pixels run in the order 2, 1, 3.
    **{f'l_norm{k + 1}': f'token_norms.{k}' for k in range(3)},
    'v_norm2': 'pixel_norm',
    'v_norm1': 'pixel_layer.attention_norm',
    'v_norm3': 'pixel_layer.ffn_norm',
    'gamma_v2l': 'token_scale',
    'gamma_l2v': 'pixel_scale',
}

TABLE = {
    **swin.backbone_table(SWIN),
    **bert_table(BERT),
    f'{PROMPTS}in_linears.{{i}}': 'neck.prompts.mlps.{i}.0',
    f'{PROMPTS}out_linears.{{i}}': 'neck.prompts.mlps.{i}.2',
    f'{PROMPTS}lang_prompts.weight': 'neck.prompts.learned',
    f'{PROMPTS}lang_prompts_norm': 'neck.prompts.norm',
    **LEVELS,
    **{
        f'{DECODER}encoder.{{i}}.{published}': f'decode_head.layers.{{i}}.{ours}'
        for published, ours in LAYER.items()
    },
    f'{DECODER}level_encoding.weight': 'decode_head.level_codes',
    f'{DECODER}lang_in_linear': 'decode_head.word_proj',
    f'{DECODER}lang_in_norm': 'decode_head.word_norm',
    f'{DECODER}vis_prompts.weight': 'decode_head.prompts',
    f'{DECODER}lateral_convs.0': 'decode_head.fpn.lateral',
    f'{DECODER}output_convs.0': 'decode_head.fpn.output',
    f'{DECODER}mask_feature': 'decode_head.pixel_mlp',
    f'{DECODER}lang_embed': 'decode_head.class_mlp',
}

LEFT_OUT = {
    **preceded(SWIN, swin.LEFT_OUT),
    **bert_left_out(BERT),
    f'{SWIN}mask_token': 'of MaskRIS, whose network does not use it',
    'criterion.seg_criterion.weight': "the loss's class weights, which the config has",
}

CHANGES = {
    **preceded(SWIN, swin.CHANGES),
    # published as (1, 1, channels)
    f'{DECODER}encoder.{{i}}.gamma_v2l': torch.flatten,
    f'{DECODER}encoder.{{i}}.gamma_l2v': torch.flatten,
}

convert_caris = register(
    Converter(
        name='caris',
        method='CARIS',
        models=('caris_swin-base-w7', 'caris_swin-tiny-w7'),
        table=TABLE,
        left_out=LEFT_OUT,
        changes=CHANGES,
        parts={'model': ''},
        # the command line of the training
        allow=[argparse.Namespace],
    )
)
