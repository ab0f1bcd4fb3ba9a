"""Swin's published classification weights, for MMSegmentation's Swin and what is built on it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from nemo_mmseg.models.converters import swin
from nemo_mmseg.models.converters.rename import Renamed, describe, differences, rename
from nemo_mmseg.utils.checkpoint import read_checkpoint

CLASSIFIER = 'classifies images'
NORM = 'normalises for the classifier'
OUTPUT_NORMS = ('norm0', 'norm1', 'norm2', 'norm3')

OFFICIAL_LEFT_OUT = {**swin.LEFT_OUT, 'norm': NORM, 'head': CLASSIFIER}
OPENMMLAB_TABLE = {part: part for part in ('patch_embed', 'stages')}
OPENMMLAB_LEFT_OUT = {
    'stages.{i}.blocks.{j}.attn.w_msa.relative_position_index': "computed from the window's size",
    'stages.{i}.blocks.{j}.attn.attn_mask': "computed from the map's size",
    'stages.{i}.blocks.{j}.attn_mask': "computed from the map's size",
    **dict.fromkeys(('norm', *OUTPUT_NORMS), NORM),
    'head': CLASSIFIER,
}


def load_swin_weights(
    backbone: nn.Module, weights: str | os.PathLike, new_parts: Sequence[str] = ()
) -> None:
    """Fill a Swin transformer with classification weights.

    Tables of relative position biases that were trained with another window are resized. Output
    norms and new parts keep their values; everything else must be there. One line in the log says
    what was loaded, resized and left out.

    Args:
        backbone: MMSegmentation's ``SwinTransformer`` or a class built on it.
        weights: File or http(s) address, in the official layout (entry ``model``) or OpenMMLab's
            (a state dict, or the entry ``state_dict`` of a classifier).
        new_parts: What the backbone has beside Swin, by the first part of the names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged or does not fit; names the tensors as they are in the file.
    """
    kept = {*OUTPUT_NORMS, *new_parts}
    try:
        tensors, table, renamed = rename_swin(read_checkpoint(weights))
        ours = {
            name: tensor
            for name, tensor in backbone.state_dict().items()
            if name.split('.')[0] not in kept and 'relative_position_index' not in name
        }
        resized = resize_tables(renamed.state_dict, ours)
        found = differences(renamed, {n: t.shape for n, t in ours.items()}, tensors, table)
        if any(found):
            raise ValueError(f'it does not fit the backbone: {describe(found)}')
    except ValueError as error:
        if str(weights) in str(error):
            raise
        raise ValueError(f'Swin weights {weights}: {error}') from error
    backbone.load_state_dict(renamed.state_dict, strict=False)
    reasons = dict.fromkeys(renamed.left_out.values())
    print_log(
        f'Swin: {len(ours)} tensors from {weights}, {resized} bias tables resized, '
        f'{len(renamed.left_out)} tensors left out ({"; ".join(reasons) or "none"})',
        logger='current',
    )


def rename_swin(content: object) -> tuple[dict[str, Tensor], dict[str, str], Renamed]:
    """Return the tensors of a file, the table for its layout, and the tensors under our names."""
    if not isinstance(content, Mapping):
        raise ValueError('it holds no state dict')
    for entry in ('model', 'state_dict'):
        if isinstance(content.get(entry), Mapping):
            content = content[entry]
    tensors = {
        str(name).removeprefix('module.').removeprefix('backbone.'): tensor
        for name, tensor in content.items()
    }
    if any(name.startswith('stages.') for name in tensors):
        table, left_out, changes = OPENMMLAB_TABLE, OPENMMLAB_LEFT_OUT, {}
    else:
        table, left_out, changes = swin.TABLE, OFFICIAL_LEFT_OUT, swin.CHANGES
    return tensors, table, rename(tensors, table, left_out, 'Swin', changes)


def resize_tables(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> int:
    """Resize the bias tables of ``state`` to the windows of ``wanted`` and return how many.

    A table (side * side, heads) is an image per head and is resized bicubically, as published.
    """
    count = 0
    for name, table in state.items():
        if not name.endswith('relative_position_bias_table') or name not in wanted:
            continue
        if table.ndim != 2:
            continue  # found wrong by its shape
        old, new = (round(t.shape[0] ** 0.5) for t in (table, wanted[name]))
        # and so is anything but a square with as many heads
        if old == new or table.shape != (old * old, wanted[name].shape[1]):
            continue
        images = table.T.reshape(1, -1, old, old)
        if images.dtype != torch.float64:
            images = images.float()
        images = F.interpolate(images, (new, new), mode='bicubic', align_corners=False)
        state[name] = images.flatten(2)[0].T.to(table.dtype)
        count += 1
    return count
