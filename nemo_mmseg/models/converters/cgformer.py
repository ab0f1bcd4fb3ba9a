"""CGFormer's published names and ours."""

from __future__ import annotations

from . import swin
from .converter import Converter, register
from .lavt import backbone_table, bert_left_out, bert_table, linear_weight
from .rename import preceded

READER = {
    'loadtoken.cross_attn.q_proj': 'query',
    'loadtoken.cross_attn.k_proj': 'key',
    'loadtoken.cross_attn.v_proj': 'value',
    'loadtoken.cross_attn.proj': 'out',
    'loadtoken.normq': 'token_norm',
    'loadtoken.normk': 'word_norm',
    'norm': 'norm',
    'mlp.fc1': 'ffn.0',
    'mlp.fc2': 'ffn.3',
}
GROUPING = {
    'tau': 'tau',
    'norm_t': 'token_norm',
    'norm_v': 'pixel_norm',
    'q_proj': 'query',
    'k_proj': 'key',
    'v_proj': 'value',
    'proj': 'out',
    'norm': 'norm',
    'mlp.fc1': 'ffn.0',
    'mlp.fc2': 'ffn.3',
}

TABLE = {
    **backbone_table('pwam_fusion', 'pwam_gate'),
    'decoder.tokens.weight': 'decode_head.tokens',
    **{
        f'decoder.fuses.{{k}}.fusion.{3 * i + j}': f'decode_head.fusions.{{k}}.conv{i + 1}.{part}'
        for i in range(2)
        for j, part in enumerate(('conv', 'bn'))
    },
    'decoder.layers.{k}.positional_embedding': 'decode_head.positions.{k}',
    # The first of three rounds reads no words.
    **{
        f'decoder.layers.{k}.{published}': f'decode_head.readers.{k - 1}.{ours}'
        for k in (1, 2)
        for published, ours in READER.items()
    },
    **{
        f'decoder.cgattention{k}.{published}': f'decode_head.groupings.{k - 1}.{ours}'
        for k in (1, 2)
        for published, ours in GROUPING.items()
    },
    'decoder.proj.vis.1': 'decode_head.projector.conv1',
    'decoder.proj.vis.3': 'decode_head.projector.conv2',
    'decoder.proj.vis.4': 'decode_head.projector.conv3',
    'decoder.proj.txt': 'decode_head.projector.token_proj',
    **bert_table('text_encoder.'),
}

LEFT_OUT = {
    **preceded('backbone.', swin.LEFT_OUT),
    'backbone.layers.3.pwam_gate': 'the last gate, whose result the network throws away',
    'decoder.layers.{k}.loadtoken.norm': 'the network does not use it',
    'decoder.layers.{k}.loadtoken.mlp': 'the network does not use it',
    **bert_left_out('text_encoder.'),
}

CHANGES = {
    **preceded('backbone.', swin.CHANGES),
    'backbone.layers.{i}.pwam_fusion': linear_weight,
}

convert_cgformer = register(
    Converter(
        name='cgformer',
        method='CGFormer',
        models=['cgformer_swin-base-w12'],
        table=TABLE,
        left_out=LEFT_OUT,
        changes=CHANGES,
        parts={'model_state_dict': ''},
    )
)
