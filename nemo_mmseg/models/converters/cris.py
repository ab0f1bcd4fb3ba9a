"""CRIS's published names and ours."""

from __future__ import annotations

from nemo_mmseg.compat import numpy_scalar_globals

from .converter import Converter, register

LEFT_OUT = {'backbone.logit_scale': "CLIP's temperature; the network does not use it"}

# Published prefix -> ours. CLIP is one module there; here its halves are text encoder and backbone.
TABLE = {
    'backbone.visual': 'backbone.tower',
    **{
        f'backbone.{name}': f'text_encoder.tower.{name}'
        for name in (
            'positional_embedding',
            'text_projection',
            'token_embedding',
            'transformer',
            'ln_final',
        )
    },
    'neck.txt_proj': 'neck.sentence_proj',
    'neck.f1_v_proj': 'neck.image5',
    'neck.norm_layer': 'neck.gate_norm',
    'neck.f2_v_proj': 'neck.image4',
    'neck.f2_cat': 'neck.merge4',
    'neck.f3_v_proj': 'neck.image3',
    'neck.f3_cat': 'neck.merge3',
    'neck.f4_proj5': 'neck.query5',
    'neck.f4_proj4': 'neck.query4',
    'neck.f4_proj3': 'neck.query3',
    'neck.aggr': 'neck.merge',
    'neck.coordconv.0.conv1': 'neck.coordinates',
    'neck.coordconv.1': 'neck.out',
    'decoder': 'decode_head.decoder',
    'decoder.layers.{i}.multihead_attn': 'decode_head.decoder.layers.{i}.cross_attn',
    'proj.vis.1': 'decode_head.projector.conv1',
    'proj.vis.3': 'decode_head.projector.conv2',
    'proj.vis.4': 'decode_head.projector.conv3',
    'proj.txt': 'decode_head.projector.sentence_proj',
}

convert_cris = register(
    Converter(
        name='cris',
        method='CRIS',
        models=('cris_r50', 'cris_r101'),
        table=TABLE,
        left_out=LEFT_OUT,
        # the scores of the training
        allow=numpy_scalar_globals(),
    )
)
