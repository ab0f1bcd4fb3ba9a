"""Names of the published Swin transformer, and MMSegmentation's."""

from __future__ import annotations

from torch import Tensor

TABLE = {
    'patch_embed.proj': 'patch_embed.projection',
    'patch_embed.norm': 'patch_embed.norm',
    **{
        f'layers.{{i}}.blocks.{{j}}.{published}': f'stages.{{i}}.blocks.{{j}}.{ours}'
        for published, ours in {
            'norm1': 'norm1',
            'attn.relative_position_bias_table': 'attn.w_msa.relative_position_bias_table',
            'attn.qkv': 'attn.w_msa.qkv',
            'attn.proj': 'attn.w_msa.proj',
            'norm2': 'norm2',
            'mlp.fc1': 'ffn.layers.0.0',
            'mlp.fc2': 'ffn.layers.1',
        }.items()
    },
    'layers.{i}.downsample.norm': 'stages.{i}.downsample.norm',
    'layers.{i}.downsample.reduction': 'stages.{i}.downsample.reduction',
}


def backbone_table(prefix: str) -> dict[str, str]:
    """Return the table of a backbone whose four maps each have a norm of their own."""
    return {
        **{f'{prefix}{published}': f'backbone.{ours}' for published, ours in TABLE.items()},
        **{f'{prefix}norm{i}': f'backbone.norm{i}' for i in range(4)},
    }


LEFT_OUT = {
    'layers.{i}.blocks.{j}.attn.relative_position_index': "computed from the window's size",
    'layers.{i}.blocks.{j}.attn_mask': "computed from the map's size",
}


def order_merging(tensor: Tensor) -> Tensor:
    """Reorder the last axis of a patch merging's tensor for MMSegmentation.

    Published, the four neighbours (0, 0), (1, 0), (0, 1), (1, 1), each of C channels, follow one
    another; MMSegmentation's unfold keeps, for every channel, the neighbours (0, 0), (0, 1),
    (1, 0), (1, 1) together.

    Args:
        tensor: ``(..., 4 * C)``. Any other number is returned as it is; its shape then does not
            fit.
    """
    if tensor.ndim == 0 or tensor.shape[-1] % 4:
        return tensor
    neighbours = tensor.unflatten(-1, (4, -1))
    return neighbours[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)


CHANGES = {'layers.{i}.downsample': order_merging}
