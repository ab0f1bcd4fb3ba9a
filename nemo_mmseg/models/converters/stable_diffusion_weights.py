"""Stable Diffusion's published weights, for the parts of a network that are built of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

from mmengine.logging import print_log
from torch import Tensor, nn

from nemo_mmseg.compat import numpy_scalar_globals
from nemo_mmseg.models.converters import stable_diffusion as names
from nemo_mmseg.models.converters.rename import describe, differences, preceded, rename
from nemo_mmseg.utils.checkpoint import download, read_checkpoint, state_dict_of
from nemo_mmseg.utils.faults import shown
from nemo_mmseg.utils.fileio import load_json
from nemo_mmseg.utils.weights_file import read_weights

NOISE = 'the schedule of the noise'
SCHEDULE = (
    *('betas', 'alphas_cumprod', 'alphas_cumprod_prev', 'logvar', 'scale_factor'),
    *('sqrt_alphas_cumprod', 'sqrt_one_minus_alphas_cumprod', 'log_one_minus_alphas_cumprod'),
    *('sqrt_recip_alphas_cumprod', 'sqrt_recipm1_alphas_cumprod', 'posterior_variance'),
    *('posterior_log_variance_clipped', 'posterior_mean_coef1', 'posterior_mean_coef2'),
)
# Of the single file, what is no part of UNet or VAE.
BESIDES = {
    **dict.fromkeys(SCHEDULE, NOISE),
    'cond_stage_model': "CLIP's text encoder, which the network reads from CLIP's own file",
    'model_ema': 'averages of the training',
}
# In a folder, in the order in which they are looked for.
FILES = tuple(
    f'diffusion_pytorch_model{variant}.{kind}'
    for variant in ('', '.fp16')
    for kind in ('safetensors', 'bin')
)
# Fields of a folder's config.json that say nothing about what is computed here.
OF_NO_MATTER = {
    # not 'scaling_factor': it is not used, but tells the VAE of XL
    *('sample_size', 'out_channels', 'shift_factor', 'force_upcast'),
    *('latents_mean', 'latents_std'),
}
# Of versions before 0.17; Stable Diffusion's own folder is older.
OLD_ATTENTION = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}


class Layout(NamedTuple):
    """How a file names the tensors of a part.

    Args:
        table: Their pattern -> diffusers' pattern.
        left_out: Their pattern -> why the network has no such tensor.
        changes: Their pattern -> what makes diffusers' layout of a tensor.
    """

    table: Mapping[str, str]
    left_out: Mapping[str, str]
    changes: Mapping = {}


UNET, VAE = 'model.diffusion_model.', 'first_stage_model.'
SINGLE = {
    'unet': Layout(
        preceded(UNET, names.UNET_TABLE),
        {
            **preceded(UNET, names.UNET_LEFT_OUT),
            'first_stage_model': 'the VAE, which the backbone takes',
            **BESIDES,
        },
    ),
    'vae': Layout(
        preceded(VAE, names.VAE_TABLE),
        {
            **preceded(VAE, names.VAE_LEFT_OUT),
            'model.diffusion_model': 'the UNet, which the neck takes',
            **BESIDES,
        },
        preceded(VAE, names.VAE_CHANGES),
    ),
}
ATTENTION = 'encoder.mid_block.attentions.0'
FOLDER = {
    'unet': Layout(
        {
            part: part
            for part in ('conv_in', 'time_embedding', 'down_blocks', 'mid_block', 'up_blocks')
        },
        dict.fromkeys(('conv_norm_out', 'conv_out'), names.UNET_LEFT_OUT['out']),
    ),
    'vae': Layout(
        {
            'encoder': 'encoder',
            'quant_conv': 'quant_conv',
            **{f'{ATTENTION}.{a}': f'{ATTENTION}.{b}' for a, b in OLD_ATTENTION.items()},
        },
        names.VAE_LEFT_OUT,
        {f'{ATTENTION}.{a}': names.pixel_weight for a in OLD_ATTENTION},
    ),
}
# Channels of a word -> which Stable Diffusion has it.
VERSIONS = {768: '1', 1024: '2', 2048: 'XL'}


class ModelCheckpoint:
    """Stands for a class of PyTorch Lightning that Stable Diffusion's own file names as a key."""


LIGHTNING = (ModelCheckpoint, 'pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint')


def load_stable_diffusion(module: nn.Module, part: str, weights: str | os.PathLike) -> None:
    """Fill a UNet or a VAE of diffusers with Stable Diffusion's weights.

    The tensors stay in the file until they are copied, where its format allows it: a file of 4 GB
    takes no memory of its own. One line in the log says what was loaded and left out.

    Args:
        module: The UNet without the layers that predict noise, or the VAE without decoder.
        part: ``'unet'`` or ``'vae'``.
        weights: Stable Diffusion's single file (``.ckpt`` or ``.safetensors``), its http(s)
            address, or the folder of a pipeline that diffusers saved.

    Raises:
        FileNotFoundError: There is no such file, or the folder lacks one.
        ValueError: It is damaged, of another version, or does not fit; names file and tensors.
    """
    if urlparse(str(weights)).scheme in ('http', 'https'):
        weights = download(str(weights))
    path, layout = Path(weights), SINGLE[part]
    if path.is_dir():
        path, layout = file_of(path / part), FOLDER[part]
        compare_config(path.with_name('config.json'), module)
    tensors = read(path)
    try:
        check_version(tensors, module)
        renamed = rename(tensors, layout.table, layout.left_out, 'Stable Diffusion', layout.changes)
        ours = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        found = differences(renamed, ours, tensors, layout.table)
        if any(found):
            raise ValueError(f'it does not fit the {part} of the network: {describe(found)}')
    except ValueError as error:
        raise ValueError(f'Stable Diffusion, {path}: {error}') from error
    module.load_state_dict(renamed.state_dict)
    reasons = dict.fromkeys(renamed.left_out.values())
    print_log(
        f'Stable Diffusion: {len(ours)} tensors of the {part} from {path}, '
        f'{len(renamed.left_out)} left out ({"; ".join(reasons) or "none"})',
        logger='current',
    )


def file_of(folder: Path) -> Path:
    """Return the file with the weights of a part.

    Raises:
        FileNotFoundError: There is none.
    """
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f'{folder} has no weights: allowed are {", ".join(FILES)}, in the folders unet and vae of '
        'what diffusers saved'
    )


def compare_config(path: Path, module: nn.Module) -> None:
    """Compare what a folder says of its network with ours, where both say it.

    Raises:
        FileNotFoundError: The folder has no config.
        ValueError: It cannot be read, or they differ; names file and field.
    """
    theirs = load_json(str(path))
    if not isinstance(theirs, dict):
        raise ValueError(f'{path} must hold the fields of a network, not {shown(theirs)}')
    for field, value in dict(module.config).items():
        if field.startswith('_') or field in OF_NO_MATTER or field not in theirs:
            continue
        value = list(value) if isinstance(value, tuple) else value
        if theirs[field] != value:
            raise ValueError(
                f'{path} is of another Stable Diffusion: {field} is {shown(theirs[field])}, this '
                f'network has {value!r}'
            )


def check_version(tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Refuse the UNet of a version whose words have another size; so have many other tensors.

    Raises:
        ValueError: Names the versions.
    """
    wanted = dict(module.config).get('cross_attention_dim')
    keys = (tensor for name, tensor in tensors.items() if name.endswith('attn2.to_k.weight'))
    found = {tensor.shape[-1] for tensor in keys if tensor.ndim == 2} - {wanted}
    if wanted is not None and found:
        theirs, mine = (VERSIONS.get(width, '?') for width in (max(found), wanted))
        raise ValueError(
            f'it is of another Stable Diffusion: its words have {max(found)} channels (version '
            f'{theirs}), those of this network {wanted} (version {mine})'
        )


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, and leave them there where its format allows it."""
    if not path.is_file():
        raise FileNotFoundError(f'there are no weights of Stable Diffusion at {path}')
    if path.suffix == '.safetensors':
        return read_weights(path)
    content = read_checkpoint(path, allow=[LIGHTNING, *numpy_scalar_globals()], mmap=True)
    return state_dict_of(path, content)
