"""Builds the network of a config and fills it from a checkpoint."""

import os
import warnings

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from nemo_mmseg.compat import mmengine_globals
from nemo_mmseg.utils.checkpoint import read_checkpoint

from ..models.converters.rename import Renamed, describe, differences


def load_model(
    cfg: Config, weights: str | os.PathLike | None = None, device: str | None = None
) -> nn.Module:
    """Builds the network of a config, ready for inference.

    Args:
        cfg: Config with `model`.
        weights: Checkpoint of a run, or a plain state dict. Only tensors, plain containers and
            MMEngine's own records are unpickled. None leaves the network as its `init_weights`
            makes it, untrained.
        device: E.g. `'cuda:0'`; None takes a GPU if there is one.

    Returns:
        The network in eval mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds other things, or does not fit the network.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    # built anew from a copy: registries take settings out of the dicts they build from
    model = MODELS.build(Config(dict(model=cfg.model)).model)
    if weights is None:
        warnings.warn('no weights given: the network is untrained, and its masks mean nothing')
        model.init_weights()
    else:
        fill_model(model, weights)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return model.to(device).eval()


def fill_model(model: nn.Module, weights: str | os.PathLike) -> None:
    """Loads a checkpoint strictly.

    Args:
        model: Changed in place.
        weights: See `load_model`.
    """
    content = read_checkpoint(weights, allow=mmengine_globals())
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f'{weights} holds no state dict')
    # distributed runs save the names of their wrapper
    state = {str(name).removeprefix('module.'): value for name, value in state.items()}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        same_names = Renamed(state, {name: name for name in state}, {})
        reason = describe(differences(same_names, shapes, state, {})) or str(error)
        raise ValueError(f'{weights} does not fit the network of the config: {reason}') from error
