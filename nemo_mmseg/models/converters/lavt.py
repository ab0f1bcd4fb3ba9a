"""LAVT's published names and ours, for both layouts of its checkpoints."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from . import swin
from .converter import Converter, register
from .rename import preceded

FUSION = {
    'vis_project.0': 'visual',
    'image_lang_att.f_query.0': 'query',
    'image_lang_att.f_key.0': 'key',
    'image_lang_att.f_value.0': 'value',
    'image_lang_att.W.0': 'out',
    'project_mm.0': 'mix',
}


def linear_weight(tensor: Tensor) -> Tensor:
    """Make the weight of a 1-d convolution with a kernel of 1 that of a linear layer."""
    return tensor.flatten(1) if tensor.ndim == 3 else tensor


def bert_table(prefix: str) -> dict[str, str]:
    """Return the table of BERT, which keeps the names of transformers."""
    return {f'{prefix}{part}': f'text_encoder.bert.{part}' for part in ('embeddings', 'encoder')}


def bert_left_out(prefix: str) -> dict[str, str]:
    """Return what BERT's checkpoints can hold beside what LAVT uses."""
    return {
        f'{prefix}embeddings.position_ids': 'the numbers 0, 1, 2 ...',
        f'{prefix}pooler': "BERT's pooled vector, which the network does not use",
    }


def check_heads(published: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Compare the heads of the fusions with those on the command line of the training.

    Args:
        published: A published checkpoint; without command line, nothing is known.
        model: Config of our network.

    Raises:
        ValueError: They differ.
    """
    args = published.get('args')
    if not hasattr(args, 'mha'):
        return
    trained = str(args.mha or '1-1-1-1')
    ours = '-'.join(map(str, model['backbone'].get('fusion_heads', (1, 1, 1, 1))))
    if trained != ours:
        raise ValueError(
            f'the LAVT checkpoint was trained with --mha {trained}, the network has {ours}: give '
            f'the config of a model with fusion_heads=({trained.replace("-", ", ")})'
        )


def backbone_table(fusion: str, gate: str) -> dict[str, str]:
    """Return the table of Swin with fusions and gates, whose published names differ."""
    return {
        **swin.backbone_table('backbone.'),
        **{
            f'backbone.layers.{{i}}.{fusion}.{published}': f'backbone.fusions.{{i}}.{ours}'
            for published, ours in FUSION.items()
        },
        f'backbone.layers.{{i}}.{gate}': 'backbone.gates.{i}',
    }


BACKBONE_TABLE = backbone_table('fusion', 'res_gate')

# The names of the decoder count from 4, where the coarsest map joins, down to 2.
HEAD_TABLE = {
    **{
        f'classifier.{published}{k}_{4 - step}': f'decode_head.steps.{step}.conv{k}.{published}'
        for step in range(3)
        for k in (1, 2)
        for published in ('conv', 'bn')
    },
    'classifier.conv1_1': 'decode_head.conv_seg',
}

TABLE = {**BACKBONE_TABLE, **HEAD_TABLE}

LEFT_OUT = {
    **preceded('backbone.', swin.LEFT_OUT),
    'backbone.layers.3.res_gate': 'the last gate, whose result the network throws away',
}

CHANGES = {
    **preceded('backbone.', swin.CHANGES),
    'backbone.layers.{i}.fusion': linear_weight,
}

SETTINGS = dict(
    models=[
        f'lavt_swin-{size}'
        for size in ('tiny-w7', 'small-w7', 'base-w7', 'base-w12', 'large-w7', 'large-w12')
    ],
    changes=CHANGES,
    # the command line of the training
    allow=[argparse.Namespace],
    check=check_heads,
)

convert_lavt = register(
    Converter(
        name='lavt',
        method='LAVT',
        table={**TABLE, **bert_table('bert_model.')},
        left_out={**LEFT_OUT, **bert_left_out('bert_model.')},
        parts={'model': '', 'bert_model': 'bert_model.'},
        **SETTINGS,
    )
)

convert_lavt_one = register(
    Converter(
        name='lavt_one',
        method='LAVT (one module)',
        table={**TABLE, **bert_table('text_encoder.')},
        left_out={**LEFT_OUT, **bert_left_out('text_encoder.')},
        parts={'model': ''},
        **SETTINGS,
    )
)
