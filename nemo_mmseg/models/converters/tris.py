"""TRIS's published names and ours, of both stages."""

from __future__ import annotations

from torch import Tensor

from .converter import Converter, register

# CLIP is one module there; here its halves are text encoder and backbone.
CLIP = {
    'backbone.visual': 'backbone.tower',
    **{
        f'backbone.{name}': f'text_encoder.tower.{name}'
        for name in ('positional_embedding', 'token_embedding', 'transformer', 'ln_final')
    },
}
CLIP_LEFT_OUT = {
    'backbone.logit_scale': "CLIP's temperature; the network does not use it",
    'backbone.visual.attnpool': "CLIP's attention pool; the network does not use it",
}

PROMPT = {
    f'{published}_proj{i}': f'{ours}_{part}'
    for published, ours in (('v', 'pixel'), ('t', 'sentence'))
    for i, part in enumerate(('query', 'key', 'value'), 1)
}
STAGE1 = {
    **CLIP,
    'backbone.text_projection': 'text_encoder.tower.text_projection',
    'vis_project': 'decode_head.pixel_proj',
    'lan_project': 'decode_head.sentence_proj',
    'logit_scale': 'decode_head.logit_scale',
    **{f'attn_fusion.{a}': f'decode_head.prompt.{b}' for a, b in PROMPT.items()},
    'attn_fusion.v_output': 'decode_head.prompt.pixel_out',
    'attn_fusion.t_output.0': 'decode_head.prompt.sentence_out',
}

ATTENTION = {
    'Wk': 'key',
    'Wv': 'value',
    'Wq': 'query',
    'Wm': 'visual',
    'Ww': 'out',
    'Wo': 'mix',
    'ins_q': 'query_norm',
    'ins_w': 'out_norm',
}
# The published names count the maps from 1.
STAGE2 = {
    **CLIP,
    **{
        f'attention{i + 2}.{published}': f'decode_head.fusions.{i}.{ours}'
        for i in range(3)
        for published, ours in ATTENTION.items()
    },
    **{f'reduced_c{i + 1}': f'decode_head.reductions.{i}' for i in range(4)},
    **{f'output{i + 1}': f'decode_head.steps.{i}' for i in range(4)},
    **{f'final_seg{i + 1}': f'decode_head.outputs.{i}' for i in range(4)},
}


def linear_weight(tensor: Tensor) -> Tensor:
    """Make the weight of a 1-d or 2-d convolution with a kernel of 1 that of a linear layer."""
    return tensor.flatten(1) if tensor.ndim > 2 and tensor.shape[2:].numel() == 1 else tensor


convert_tris_stage1 = register(
    Converter(
        name='tris_stage1',
        method='TRIS, stage 1',
        models=('tris-stage1_r50', 'tris-stage1_r101'),
        table=STAGE1,
        left_out=CLIP_LEFT_OUT,
        parts={'model': ''},
    )
)

convert_tris_stage2 = register(
    Converter(
        name='tris_stage2',
        method='TRIS, stage 2',
        models=('tris-stage2_r50', 'tris-stage2_r101'),
        table=STAGE2,
        left_out={
            **CLIP_LEFT_OUT,
            'backbone.text_projection': 'makes the sentence feature; the network uses words alone',
        },
        changes={f'attention{i}': linear_weight for i in (2, 3, 4)},
        parts={'model': ''},
    )
)
