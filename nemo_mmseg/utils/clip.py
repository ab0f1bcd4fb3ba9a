"""One place where open_clip is asked for a model, its tokenizer and its preprocessing.

Mining and the networks load CLIP through these functions, so that a model name, a tag or a file
means the same to both, and so that open_clip is imported only when something is built.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from .checkpoint import check_tensors, compare_checksums
from .weights_file import check_floats, read_weights

if TYPE_CHECKING:
    from torch import nn

# What open_clip raises where the names of the tensors remind it of another layout.
ODD_WEIGHTS = (RuntimeError, SafetensorError, LookupError, AttributeError, TypeError, StopIteration)
# Files of NumPy's, which open_clip reads.
ARRAYS = {'.npz', '.npy'}
ASSETS = Path(__file__).resolve().parents[1] / 'assets'

# Models that this package ships beside open_clip's own: name -> folder, the tag of its weights and
# how it wants images prepared. The folder holds NAME.json, bpe.txt.gz and weights.safetensors.
SHIPPED = {
    'RefShapes-CLIP': dict(
        folder=ASSETS / 'refshapes_clip', tag='refshapes', preprocess=dict(resize_mode='squash')
    )
}


@cache
def _open_clip():
    """Import open_clip and add the shipped model configs to its list."""
    import open_clip

    for name, shipped in SHIPPED.items():
        config = shipped['folder'] / f'{name}.json'
        if config.is_file():
            open_clip.add_model_config(config)
    return open_clip


def _check_model(model: str) -> None:
    open_clip = _open_clip()
    if ':' not in model and model not in open_clip.list_models():
        known = ', '.join(open_clip.list_models())
        raise ValueError(f'unknown CLIP model {model!r}; open_clip knows: {known}')


def _weights(model: str, pretrained: str) -> str:
    """Return what open_clip is given as ``pretrained``: a shipped tag becomes its file."""
    shipped = SHIPPED.get(model)
    if shipped and pretrained == shipped['tag']:
        return str(shipped['folder'] / 'weights.safetensors')
    tags = _open_clip().list_pretrained_tags_by_model(model)
    if pretrained not in tags and not Path(pretrained).is_file():
        raise FileNotFoundError(
            f'{pretrained!r} is neither a file nor a pretrained tag of {model!r} '
            f'(tags: {", ".join(tags) or "none"})'
        )
    return pretrained


def load_clip(model: str, pretrained: str | None = None, device: str = 'cpu') -> nn.Module:
    """Build an open_clip model in float32 and evaluation mode.

    Args:
        model: open_clip's name, e.g. ``'ViT-B-32'``, ``'RN50'``, ``'local-dir:/path'``, or a model
            that this package ships (``'RefShapes-CLIP'``).
        pretrained: Tag (``'openai'``), local file, or None for random weights.
        device: Where the model is put.

    Returns:
        The model, with ``encode_image`` and ``encode_text``.

    Raises:
        ValueError: The architecture is unknown, or does not fit an archive of OpenAI's, or the
            file is damaged, holds other things than tensors by name, or weights that are not
            finite.
        FileNotFoundError: The weights are neither a known tag nor a file.
        RuntimeError: The weights are of another architecture.
    """
    _check_model(model)
    weights = None if pretrained is None else _weights(model, pretrained)
    file = weights is not None and Path(weights).is_file()  # else open_clip downloads it
    archive = file and _is_torchscript(weights)
    state = {}
    if file and not archive and Path(weights).suffix not in ARRAYS:
        state = read_weights(weights)  # before open_clip reads it once more
    try:
        # OpenAI's weights were trained with QuickGELU, which open_clip leaves to a model's config.
        built = _open_clip().create_model(
            model,
            pretrained=None if archive else weights,
            precision='fp32',
            device=device,
            force_quick_gelu=pretrained == 'openai',
        )
        if archive:
            _load_torchscript(built, model, weights)
    except ODD_WEIGHTS as error:
        message = f'{weights!r} does not load into CLIP model {model!r}: {error}'
        raise RuntimeError(message) from error
    if weights is not None:
        check_floats(weights, state, built.state_dict())
        check_tensors(weights, built.state_dict())
    return built.eval()


def _is_torchscript(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith('/constants.pkl') for name in archive.namelist()):
                return False
        compare_checksums(path)
    except zipfile.BadZipFile:
        return False
    except (ValueError, struct.error) as error:
        raise ValueError(f'{path} is damaged: {error}') from error
    return True


def _load_torchscript(built: nn.Module, model: str, path: str) -> None:
    """Fill a model from a TorchScript archive, as OpenAI published its weights (RN50.pt)."""
    import torch

    if not clip_config(model).get('quick_gelu'):
        raise ValueError(
            f"{path} is an archive of OpenAI's, whose networks use QuickGELU: "
            f"use it with model='{model}-quickgelu', not {model!r}"
        )
    state = torch.jit.load(path, map_location='cpu').state_dict()
    numbers = ('input_resolution', 'context_length', 'vocab_size')
    built.load_state_dict({name: state[name] for name in state if name not in numbers})


def load_clip_tokenizer(model: str, context_length: int | None = None) -> Callable:
    """Return the tokenizer that belongs to an open_clip model.

    Args:
        model: As for :func:`load_clip`.
        context_length: Number of token ids per sentence; None takes the model's own.

    Returns:
        A callable ``(list[str]) -> LongTensor (B, context_length)`` with the attributes
        ``sot_token_id``, ``eot_token_id`` and ``vocab_size``.
    """
    _check_model(model)
    settings = {}
    if model in SHIPPED:
        settings['bpe_path'] = str(SHIPPED[model]['folder'] / 'bpe.txt.gz')
    return _open_clip().get_tokenizer(model, context_length=context_length, **settings)


def clip_preprocess(model: str, clip: nn.Module) -> Callable:
    """Return the evaluation transform of a CLIP model.

    Args:
        model: As for :func:`load_clip`.
        clip: The model it returned (its image encoder knows the input size, mean and standard
            deviation).

    Returns:
        A callable that turns a PIL image into a float tensor ``(3, H, W)``.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = dict(clip.visual.preprocess_cfg)
    settings.update(SHIPPED.get(model, {}).get('preprocess', {}))
    return image_transform_v2(PreprocessCfg(**settings), is_train=False)


def clip_config(model: str) -> dict:
    """Return ``embed_dim``, ``vision_cfg`` and ``text_cfg`` of an open_clip architecture."""
    _check_model(model)
    config = _open_clip().get_model_config(model)
    return json.loads(json.dumps(config))
