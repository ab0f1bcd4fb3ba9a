"""VPD's published names and ours."""

from __future__ import annotations

import argparse

from . import lavt
from . import stable_diffusion as names
from .converter import Converter, register
from .rename import preceded

UNET, VAE = 'unet.unet.diffusion_model.', 'encoder_vq.'

TABLE = {
    'gamma': 'text_encoder.gamma',
    'text_adapter.fc.{i}': 'text_encoder.adapter.{i}',
    **{f'{VAE}{a}': f'backbone.vae.{b}' for a, b in names.VAE_TABLE.items()},
    **{f'{UNET}{a}': f'neck.unet.{b}' for a, b in names.UNET_TABLE.items()},
    **lavt.HEAD_TABLE,
}

# CLIP is in no checkpoint of VPD, and in none of ours.
convert_vpd = register(
    Converter(
        name='vpd',
        method='VPD',
        models=('vpd_sd15', 'vpd_sd15_77'),
        table=TABLE,
        left_out={
            **preceded(VAE, names.VAE_LEFT_OUT),
            **preceded(UNET, names.UNET_LEFT_OUT),
        },
        changes=preceded(VAE, names.VAE_CHANGES),
        parts={'model': ''},
        # the command line of the training
        allow=[argparse.Namespace],
    )
)
