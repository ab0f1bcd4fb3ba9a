"""Published checkpoints of other code bases, as checkpoints of this one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nemo_mmseg.utils.atomic_write import atomic_write, check_file_path
from nemo_mmseg.utils.checkpoint import read_checkpoint
from nemo_mmseg.utils.config import PACKAGE
from nemo_mmseg.version import __version__

from .converter import CONVERTERS, Converter
from .rename import describe, differences


class Converted(NamedTuple):
    """A published checkpoint under our names.

    Args:
        state_dict: Our state dict, complete, in the published precision.
        left_out: Published name -> why we have no such tensor or entry.
        model: Name of the base model (``configs/_base_/models``) that it fits; None if the model
            was given.
    """

    state_dict: dict[str, Tensor]
    left_out: dict[str, str]
    model: str | None


def convert_checkpoint(
    name: str, published: Mapping[str, Any], model: Mapping[str, Any] | None = None
) -> Converted:
    """Turn a published checkpoint into a state dict of ours.

    The result fits a network of ours exactly: no tensor is missing, has another shape or is left
    over.

    Args:
        name: E.g. ``'cris'``, ``'lavt'`` (BERT apart, in ``bert_model``) or ``'lavt_one'`` (BERT
            inside).
        published: What the published file holds: the whole checkpoint, or, except for ``lavt``, its
            state dict alone.
        model: Config of our network. Defaults to the one among this package's base models of the
            published sizes that fits.

    Returns:
        Our state dict, what was left out, and which base model fits.

    Raises:
        ValueError: The checkpoint is another method's, was converted before, or does not fit; names
            the published tensors.
    """
    converter = _converter(name)
    meta = published.get('meta') if isinstance(published, Mapping) else None
    if isinstance(meta, Mapping) and 'converted_as' in meta:
        raise ValueError(
            f'already converted, as {meta["converted_as"]!r}: it can be loaded as it is'
        )
    try:
        tensors, besides = converter.split(published)
        renamed = converter.rename(tensors)
    except ValueError as error:
        others = [other.name for other in CONVERTERS.values() if _knows(other, published)]
        hint = f' (it is one for {others[0]!r})' if others else ''
        raise ValueError(f'{error}{hint}') from error

    candidates = base_models(converter) if model is None else {'the model': model}
    found = {}
    for label, config in candidates.items():
        found[label] = differences(renamed, parameter_shapes(config), tensors, converter.table)
        if not any(found[label]):
            converter.check(published, config)
            left_out = {**besides, **renamed.left_out}
            return Converted(renamed.state_dict, left_out, label if model is None else None)
    nearest = min(found, key=lambda label: sum(map(len, found[label])))
    what = nearest if model is not None else f'any base model; nearest is {nearest}'
    reason = describe(found[nearest])
    raise ValueError(f'the {converter.method} checkpoint does not fit {what}: {reason}')


def convert_file(
    name: str,
    source: str | os.PathLike,
    target: str | os.PathLike,
    model: Mapping[str, Any] | None = None,
) -> Converted:
    """Read a published checkpoint and write ours, as MMEngine and ``init_model`` read them.

    Args:
        name: See :func:`convert_checkpoint`.
        source: File, or http(s) address. Of other classes than tensors and containers, only those
            that the method's published files hold may be in it (``Converter.allow``).
        target: File to write; its folder is made. It is never there half-written.
        model: See :func:`convert_checkpoint`.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, holds other things, does not fit, or is also the target.
        OSError: The target cannot be written.
    """
    target = Path(target)
    check_file_path(target)
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise ValueError(f'{target} cannot be the file to write: it is the one to read')
    try:
        # What is not of the network, e.g. an optimizer of twice its size, stays in the file.
        content = read_checkpoint(source, allow=_converter(name).allow, mmap=True)
        converted = convert_checkpoint(name, content, model)
    except ValueError as error:
        if str(source) in str(error):
            raise
        raise ValueError(f'{source}: {error}') from error
    meta = dict(
        nemo_mmseg=__version__,
        converted_as=name,
        converted_from=os.path.basename(str(source)),
        model=converted.model,
        left_out=converted.left_out,
    )
    try:
        with atomic_write(target) as part, part.open('wb') as file:
            torch.save(dict(state_dict=converted.state_dict, meta=meta), file)
    except RuntimeError as error:  # PyTorch's, where the system said nothing
        raise OSError(f'{target} cannot be written: {error}') from error
    return converted


def _converter(name: str) -> Converter:
    if name not in CONVERTERS:
        raise ValueError(f'no converter {name!r}; there are {", ".join(sorted(CONVERTERS))}')
    return CONVERTERS[name]


def base_models(converter: Converter) -> dict[str, dict]:
    """Return name -> ``model`` of this package's base models of a published method."""
    roots = (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs')
    folder = next(path for root in roots if (path := root / '_base_' / 'models').is_dir())
    return {name: Config.fromfile(folder / f'{name}.py').model for name in converter.models}


def build_without_memory(model: Mapping[str, Any]) -> nn.Module:
    """Build the network of a config without memory for its parameters.

    ``load_state_dict(..., assign=True)`` gives it some.

    Raises:
        ValueError: The network cannot be built.
    """
    init_default_scope('mmseg')
    try:
        with _NoMemory():
            return MODELS.build(Config(dict(model=model)).model)
    except (KeyError, TypeError) as error:  # of a class or an argument that does not exist
        raise ValueError(f'the network of the config cannot be built: {error}') from error


def parameter_shapes(model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the state dict of a network's config, without its memory.

    Raises:
        ValueError: The network cannot be built.
    """
    network = build_without_memory(model)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


class _NoMemory(TorchFunctionMode):
    """Mode in which tensors made for parameters get a shape and no values.

    ``torch.device('meta')`` does the same to all tensors, also to token ids and to the rates of
    stochastic depth, which are looked at while a network is built.
    """

    makers = (torch.empty, torch.zeros, torch.ones, torch.randn)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        integer = kwargs.get('dtype') is not None and not kwargs['dtype'].is_floating_point
        if func in self.makers and kwargs.get('device') is None and not integer:
            kwargs['device'] = 'meta'
        return func(*args, **kwargs)


def _knows(converter: Converter, published: Mapping[str, Any]) -> bool:
    try:
        converter(published)
    except ValueError:
        return False
    return True
