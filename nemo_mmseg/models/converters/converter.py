"""What all converters do alike; each method has a file with its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .rename import Renamed, rename

TRAINING_STATE = 'state of the training, no part of the network'
# What published training scripts save beside the network. Optimizers hold tensors of their own.
BESIDES = (
    *('optimizer', 'lr_scheduler', 'scheduler', 'scaler', 'epoch', 'args'),
    *('cur_iou', 'best_iou', 'prec'),  # scores of the validation, some of them tensors
)


@dataclass(frozen=True)
class Converter:
    """Converter of the checkpoints of one published method into our state dicts.

    Called on a checkpoint it returns our state dict, and published name -> reason of what was left
    out. :func:`~.convert.convert_checkpoint` also compares the result with a network of ours.

    Args:
        name: Name in ``CONVERTERS`` and on the command line.
        method: Name of the network, for messages.
        models: Names of the base models (``configs/_base_/models``) of the published sizes.
        table: Published pattern -> ours; see :func:`~.rename.rename`.
        left_out: Published pattern -> reason.
        changes: Published pattern -> function that makes our layout of a tensor.
        parts: Entry of a published checkpoint that holds a state dict -> what its names are
            preceded by in the tables and in messages.
        allow: Classes and functions that a published file may hold beside tensors and plain
            containers; see :func:`nemo_mmseg.utils.checkpoint.read_checkpoint`.
        check: Given a published checkpoint and the config of a network whose tensors have the same
            shapes, raise a ValueError if it can tell that they differ in what no shape tells.
    """

    name: str
    method: str
    models: Sequence[str]
    table: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=lambda: {'state_dict': ''})
    allow: Sequence[Any] = ()
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], None] = lambda published, model: None

    def __call__(self, published: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return our state dict, and what was left out with the reasons."""
        tensors, besides = self.split(published)
        renamed = self.rename(tensors)
        return renamed.state_dict, {**besides, **renamed.left_out}

    def rename(self, tensors: Mapping[str, Tensor]) -> Renamed:
        """Rename the tensors that :meth:`split` found."""
        return rename(tensors, self.table, self.left_out, self.method, self.changes)

    def split(self, published: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the tensors under the names of the tables, and why the rest is left out.

        Args:
            published: A whole checkpoint, or, where all tensors are in one state dict, that.

        Raises:
            ValueError: It lacks a state dict, or has tensors elsewhere.
        """
        if not isinstance(published, Mapping) or not published:
            raise ValueError(f'not a {self.method} checkpoint: it holds no state dict')
        plain = len(self.parts) == 1 and not any(part in published for part in self.parts)
        if plain and any(isinstance(value, Tensor) for value in published.values()):
            return {str(name): value for name, value in published.items()}, {}
        missing = [part for part in self.parts if not isinstance(published.get(part), Mapping)]
        if missing:
            shown = ', '.join([str(entry)[:60] for entry in list(published)[:5]]) + ' ...' * (
                len(published) > 5
            )
            raise ValueError(
                f'not a {self.method} checkpoint: it has no state dict {missing[0]!r}, but {shown}'
            )
        tensors: dict[str, Tensor] = {}
        for part, prefix in self.parts.items():
            for name, tensor in published[part].items():
                name = str(name)
                wrapped = 'module.' if name.startswith('module.') else ''
                tensors[wrapped + prefix + name.removeprefix('module.')] = tensor
        others = [entry for entry in published if entry not in self.parts]
        unknown = [e for e in others if e not in BESIDES and _holds_tensor(published[e])]
        if unknown:
            raise ValueError(
                f'not a {self.method} checkpoint: nothing is known of the tensors in '
                + ', '.join([repr(entry)[:60] for entry in unknown[:20]])
            )
        return tensors, dict.fromkeys(map(str, others), TRAINING_STATE)


CONVERTERS: dict[str, Converter] = {}


def register(converter: Converter) -> Converter:
    """Add a converter to ``CONVERTERS`` and return it."""
    CONVERTERS[converter.name] = converter
    return converter


def _holds_tensor(value: Any) -> bool:
    """Tell whether there is a tensor anywhere in containers, however deep or cyclic they are."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            return True
        if isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value
    return False
