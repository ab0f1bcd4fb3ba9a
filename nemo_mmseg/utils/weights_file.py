"""Files of weights that a library reads by itself: looked at before it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .checkpoint import WRAPPERS, check_tensors, quoted, read_checkpoint, state_dict_of


def read_weights(
    path: str | os.PathLike, rename: Callable[[str], str] = lambda name: name
) -> dict[str, Tensor]:
    """Read a file of weights, and look at each of its tensors.

    Args:
        path: Of safetensors, by its end, or what ``torch.save`` wrote.
        rename: Returns the network's name for one of the file, which has no prefix of a wrapper.

    Returns:
        Its tensors by the names in it.

    Raises:
        ValueError: The file is damaged, names a tensor twice, or has one that is not finite or
            complex; see :func:`nemo_mmseg.utils.checkpoint.check_tensors`.
    """
    if Path(path).suffix == '.safetensors':
        try:
            state = load_file(path)
        except (SafetensorError, KeyError) as error:  # a type that PyTorch has not
            raise ValueError(f'{path} cannot be read as safetensors: {error}') from error
    else:
        state = state_dict_of(path, read_checkpoint(path, mmap=True))
    check_tensors(path, state, rename)
    return state


def check_floats(
    path: str | os.PathLike,
    state: Mapping[str, Tensor],
    network: Mapping[str, Tensor],
    rename: Callable[[str], str] = lambda name: name,
) -> None:
    """Refuse integers where a network has floats: a library would turn them into floats.

    Args:
        path: The file, for the message.
        state: What :func:`read_weights` returned.
        network: State dict of the network.
        rename: As for :func:`read_weights`.

    Raises:
        ValueError: Names file and tensor.
    """
    for name, tensor in state.items():
        ours = network.get(rename(WRAPPERS.sub('', name)))
        if ours is not None and ours.is_floating_point() and not tensor.is_floating_point():
            raise ValueError(
                f'{path}: the tensor {quoted(name)} is of {tensor.dtype}, where the network has '
                f'{ours.dtype}; allowed: floats'
            )
