"""Names of Stable Diffusion 1's own file for its UNet and its VAE, and those of diffusers.

The UNet has four levels, two blocks a level on the way down and three on the way up. Its blocks are
numbered throughout there, by level here, so the table lists them one by one.
"""

from __future__ import annotations

from torch import Tensor

RESNET = {
    'in_layers.0': 'norm1',
    'in_layers.2': 'conv1',
    'emb_layers.1': 'time_emb_proj',
    'out_layers.0': 'norm2',
    'out_layers.3': 'conv2',
    'skip_connection': 'conv_shortcut',
}
LEVELS = 4


def unet_table() -> dict[str, str]:
    """Return published pattern -> that of diffusers' ``UNet2DConditionModel``."""
    blocks, others = {'middle_block.0': 'mid_block.resnets.0'}, {}
    blocks['middle_block.2'] = 'mid_block.resnets.1'
    others['middle_block.1'] = 'mid_block.attentions.0'
    for level in range(LEVELS):
        down, up = f'down_blocks.{level}', f'up_blocks.{level}'
        first = 3 * level  # three blocks a level: on the way down the last one halves the size
        for i in range(2):
            blocks[f'input_blocks.{first + i + 1}.0'] = f'{down}.resnets.{i}'
            if level < LEVELS - 1:
                others[f'input_blocks.{first + i + 1}.1'] = f'{down}.attentions.{i}'
        for i in range(3):
            blocks[f'output_blocks.{first + i}.0'] = f'{up}.resnets.{i}'
            if level > 0:
                others[f'output_blocks.{first + i}.1'] = f'{up}.attentions.{i}'
        if level < LEVELS - 1:
            others[f'input_blocks.{first + 3}.0.op'] = f'{down}.downsamplers.0.conv'
            # behind the transformer, which the coarsest level does not have
            place = 2 if level > 0 else 1
            others[f'output_blocks.{first + 2}.{place}.conv'] = f'{up}.upsamplers.0.conv'
    return {
        'time_embed.0': 'time_embedding.linear_1',
        'time_embed.2': 'time_embedding.linear_2',
        'input_blocks.0.0': 'conv_in',
        **others,
        **{
            f'{published}.{part}': f'{ours}.{theirs}'
            for published, ours in blocks.items()
            for part, theirs in RESNET.items()
        },
    }


UNET_TABLE = unet_table()
UNET_LEFT_OUT = {'out': 'the layers that predict noise, which the network does not use'}

VAE_TABLE = {
    'encoder.conv_in': 'encoder.conv_in',
    'encoder.down.{i}.block.{j}': 'encoder.down_blocks.{i}.resnets.{j}',
    'encoder.down.{i}.block.{j}.nin_shortcut': 'encoder.down_blocks.{i}.resnets.{j}.conv_shortcut',
    'encoder.down.{i}.downsample.conv': 'encoder.down_blocks.{i}.downsamplers.0.conv',
    'encoder.mid.block_1': 'encoder.mid_block.resnets.0',
    'encoder.mid.block_2': 'encoder.mid_block.resnets.1',
    **{
        f'encoder.mid.attn_1.{published}': f'encoder.mid_block.attentions.0.{ours}'
        for published, ours in {
            'norm': 'group_norm',
            'q': 'to_q',
            'k': 'to_k',
            'v': 'to_v',
            'proj_out': 'to_out.0',
        }.items()
    },
    'encoder.norm_out': 'encoder.conv_norm_out',
    'encoder.conv_out': 'encoder.conv_out',
    'quant_conv': 'quant_conv',
}
DECODER = 'makes images of latents, which the network does not do'
VAE_LEFT_OUT = {'decoder': DECODER, 'post_quant_conv': DECODER}


def pixel_weight(tensor: Tensor) -> Tensor:
    """Make the weight of a convolution with a kernel of 1 x 1 that of a linear layer."""
    return tensor.flatten(1) if tensor.ndim == 4 else tensor


VAE_CHANGES = {'encoder.mid.attn_1': pixel_weight}
