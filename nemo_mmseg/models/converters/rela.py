"""ReLA's published names and ours."""

from __future__ import annotations

from . import lavt
from .converter import Converter, register
from .rename import preceded

PIXEL = 'sem_seg_head.pixel_decoder'
PIXEL_TABLE = {
    f'{PIXEL}.input_proj': 'neck.input_projs',
    f'{PIXEL}.transformer.level_embed': 'neck.level_embed',
    **{
        f'{PIXEL}.transformer.encoder.layers.{{i}}.{published}': f'neck.layers.{{i}}.{ours}'
        for published, ours in {
            'self_attn': 'attention',
            'norm1': 'attention_norm',
            'linear1': 'ffn.0',
            'linear2': 'ffn.2',
            'norm2': 'ffn_norm',
        }.items()
    },
    # The convolutions hold their norms.
    f'{PIXEL}.adapter_1': 'neck.fpn.lateral.conv',
    f'{PIXEL}.adapter_1.norm': 'neck.fpn.lateral.gn',
    f'{PIXEL}.layer_1': 'neck.fpn.output.conv',
    f'{PIXEL}.layer_1.norm': 'neck.fpn.output.gn',
    f'{PIXEL}.mask_features': 'neck.mask_features',
}

HEAD = 'sem_seg_head.predictor'
HEAD_TABLE = {
    **{
        f'{HEAD}.{name}': f'decode_head.{name}'
        for name in ('query_feat', 'query_embed', 'level_embed', 'minimap_embed')
    },
    f'{HEAD}.decoder_norm': 'decode_head.norm',
    **{
        f'{HEAD}.{published}': f'decode_head.layers.{{i}}.{ours}'
        for published, ours in {
            'RIA_layers.{i}.multihead_attn': 'image_attention',
            'RIA_layers.{i}.norm': 'image_norm',
            'RLA_vision.{i}.self_attn': 'region_attention',
            'RLA_vision.{i}.norm': 'region_norm',
            'transformer_ffn_layers.{i}.linear1': 'ffn.0',
            'transformer_ffn_layers.{i}.linear2': 'ffn.2',
            'transformer_ffn_layers.{i}.norm': 'ffn_norm',
        }.items()
    },
    **{
        f'{HEAD}.{published}': f'decode_head.layers.0.language.{ours}'
        for published, ours in {
            'lang_proj': 'proj',
            'lang_weight': 'weight',
            'RLA_lang_att.multihead_attn': 'attention',
            'RLA_lang_att.norm': 'norm',
        }.items()
    },
    **{f'{HEAD}.mask_embed.layers.{i}': f'decode_head.mask_embed.{2 * i}' for i in range(3)},
    **{f'{HEAD}.nt_embed.layers.{i}': f'decode_head.no_target_embed.{2 * i}' for i in range(2)},
}

convert_rela = register(
    Converter(
        name='rela',
        method='ReLA',
        models=('rela_swin-tiny-w7', 'rela_swin-base-w12'),
        table={
            **lavt.BACKBONE_TABLE,
            **PIXEL_TABLE,
            **HEAD_TABLE,
            **lavt.bert_table('text_encoder.'),
        },
        left_out={
            **preceded('backbone.', lavt.swin.LEFT_OUT),
            **lavt.bert_left_out('text_encoder.'),
        },
        changes=lavt.CHANGES,
        parts={'model': ''},
    )
)
