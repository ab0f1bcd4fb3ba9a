"""What the comparisons of all methods share: the case, its tolerances, intermediate results."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

import nemo_mmseg  # noqa: F401  (registers)
from nemo_mmseg.models.converters.convert import base_models, convert_checkpoint
from nemo_mmseg.models.converters.converter import CONVERTERS

from . import filling

PLACES = {True: 'meta', False: 'cpu'}
Summary = dict[str, Any]  # shape and some of: mean, std, norm, head, sample


@dataclass(frozen=True)
class Comparison:
    """One number that must not be larger than another.

    Args:
        what: What was compared.
        difference: How much it differs.
        tolerance: How much it may.
        middle: Whether it is one of the many intermediate results.
    """

    what: str
    difference: float
    tolerance: float
    middle: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is as it must be; not so for a difference that is no number."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        mark = 'ok  ' if self.holds else 'FAIL'
        shown = f'{self.difference:.2g}' if self.difference < 1 else f'{self.difference:g}'
        return f'{mark} {self.what}: {shown} (<= {self.tolerance:g})'


def relative(ours: Tensor | np.ndarray, theirs: Tensor | np.ndarray, least: float = 0.0) -> float:
    """||ours - theirs|| / ||theirs||; infinite for different shapes.

    Args:
        ours: Our values.
        theirs: The stored ones.
        least: Root mean square to divide by if theirs is smaller.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float('inf')
    norm = max(np.linalg.norm(theirs), least * theirs.size**0.5)
    error = np.linalg.norm(ours - theirs)
    if norm == 0:
        return 0.0 if error == 0 else float('inf')
    return float(error / norm)


def summarize(x: Tensor) -> Summary:
    """Shape, statistics, the first 64 values and up to 512 that are spread over a tensor."""
    flat = x.detach().reshape(-1)
    spread = [(i * 1000003) % len(flat) for i in range(min(len(flat), 512))]
    exact = flat.double()
    return dict(
        shape=tuple(x.shape),
        mean=float(exact.mean()),
        std=float(exact.std(correction=0)),
        norm=float(exact.norm()),
        head=flat[:64].numpy(),
        sample=flat[spread].numpy(),
    )


def summary_difference(ours: Summary, theirs: Summary) -> tuple[float, str]:
    """The largest relative difference of two summaries, and of what.

    Means are compared in units of the standard deviation, and so are the first values where they
    are smaller: these sit in one corner, and GELU makes of a negative number one near 0 whose
    rounding is as large as before.
    """
    if tuple(ours['shape']) != tuple(theirs['shape']):
        return float('inf'), f'shape {ours["shape"]} for {theirs["shape"]}'
    std = float(theirs['std']) or 1.0
    found = {}
    for key in theirs.keys() - {'shape'}:
        if key == 'mean':
            found[key] = abs(ours[key] - float(theirs[key])) / std
        else:
            found[key] = relative(ours[key], theirs[key], std if key == 'head' else 0.0)
    # a difference that is no number is the worst
    key = max(found, key=lambda key: (np.isnan(found[key]), found[key]))
    return found[key], key


@dataclass
class Case:
    """Stored inputs and results of a published network.

    Args:
        folder: The case folder. Weights and images are drawn by ``fill.py`` beside it, where there
            is one.
        values: File of the results.
        names: File of the published names.
        unread: Keys of ``values`` that nothing has asked for yet.
    """

    folder: Path
    values: str = 'case.npz'
    names: str = 'names.json'
    unread: set[str] = field(init=False)

    def __post_init__(self) -> None:
        with np.load(self.folder / self.values) as stored:
            self._values = dict(stored)
        self.unread = set(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> np.ndarray:
        self.unread.discard(key)
        return self._values[key]

    def keys(self) -> list[str]:
        """Names of all values."""
        return list(self._values)

    def tensor(self, key: str) -> Tensor:
        """A stored array."""
        return torch.from_numpy(self[key])

    def summary(self, key: str) -> Summary:
        """What is stored of a tensor instead of all of it, under ``key/mean`` and so on."""
        parts = [name for name in self.keys() if name.rpartition('/')[0] == key]
        summary = {name.rpartition('/')[2]: self[name] for name in parts}
        return {**summary, 'shape': tuple(summary['shape'].tolist())}

    def compare(
        self, key: str, ours: Tensor, tolerance: float, what: str | None = None
    ) -> Iterator[Comparison]:
        """Compares with a stored array, or with the summary that is stored of it."""
        if key in self:
            yield Comparison(what or key, relative(ours, self[key]), tolerance)
        else:
            difference, _ = summary_difference(summarize(ours), self.summary(key))
            yield Comparison(f'{what or key} (summary)', difference, tolerance)

    def all_read(
        self, ignored: Mapping[str, str], prefixes: tuple[str, ...] = ('',)
    ) -> Iterator[Comparison]:
        """Whether every stored value was compared or is known to be of no use.

        Args:
            ignored: Key -> why it is not compared.
            prefixes: Only keys that begin with one of these.
        """
        left = [key for key in self.unread if key.startswith(prefixes) and key not in ignored]
        names = ''.join(f' {key}' for key in sorted(left))
        yield Comparison(f'stored values that nothing looked at{names}', len(left), 0)

    @property
    def fill(self) -> ModuleType:
        """The module that draws weights and images."""
        path = self.folder.parent / 'fill.py'
        if not path.is_file():
            return filling
        spec = importlib.util.spec_from_file_location('parity_fill', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def weights(self, part: str | None = None, without: str | None = None) -> dict[str, Tensor]:
        """A state dict under its published names.

        Where the case has ``scale_name`` and ``scale_value``, tensors are multiplied by the values
        of all patterns that match their names.

        Args:
            part: Entry of the file of names; None if there is just one state dict in it.
            without: What the names begin with that are left out; None draws all.
        """
        path = self.folder / self.names
        if path.is_file():
            names = json.loads(path.read_text())
        else:
            names = json.loads(gzip.decompress(path.with_name(f'{path.name}.gz').read_bytes()))
        # What is drawn needs no memory before; integers stay 0.
        empty = {
            name: torch.zeros(shape, dtype=getattr(torch, dtype), device=PLACES['float' in dtype])
            for name, (shape, dtype) in (names if part is None else names[part]).items()
            if without is None or not name.startswith(without)
        }
        drawn = self.fill.fill_state_dict(empty, seed=int(self['seed']))
        # the rule makes vectors of single numbers
        weights = {name: tensor.reshape(empty[name].shape) for name, tensor in drawn.items()}
        if 'scale_name' in self:
            for pattern, factor in zip(self['scale_name'], self['scale_value'], strict=True):
                for name in filter(partial(fnmatchcase, pat=str(pattern)), weights):
                    weights[name] *= float(factor)
        return weights


def base_model(method: str, name: str) -> dict:
    """Config of one of this package's base models, that builds without a network."""
    return base_models(CONVERTERS[method])[name]


def without_text(method: str, name: str) -> nn.Module:
    """All parts of a base model but its text encoder, in evaluation mode."""
    init_default_scope('mmseg')
    config = Config(dict(model=base_model(method, name))).model
    model = nn.Module()
    for part in ('backbone', 'neck', 'decode_head'):
        if part in config:
            model.add_module(part, MODELS.build(config[part]))
    return model.eval()


def tell_left_out(left_out: Mapping[str, str]) -> None:
    """Print what a converter left out."""
    for reason, count in Counter(left_out.values()).items():
        print(f'    left out {count}: {reason}')


def load_converted(
    method: str, published: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> nn.Module:
    """The network that a published checkpoint fits, with its weights, in evaluation mode.

    Args:
        method: Name of the converter.
        published: The checkpoint.
        changes: Dotted name -> value of settings that differ from the base model's.
    """
    init_default_scope('mmseg')
    converted = convert_checkpoint(method, published)
    print(f'    {method}: {len(converted.state_dict)} tensors of {converted.model}')
    tell_left_out(converted.left_out)
    config = Config(dict(model=base_model(method, converted.model)))
    config.merge_from_dict(dict(changes or {}))
    model = MODELS.build(config.model).eval()
    model.load_state_dict(converted.state_dict)
    return model


def first(output: Any) -> Tensor:
    """The first of several outputs; a tensor as it is."""
    return output if isinstance(output, Tensor) else output[0]


def rows_first(x: Tensor) -> Tensor:
    """Swaps the first two axes."""
    return first(x).transpose(0, 1)


def channels_first(x: Tensor) -> Tensor:
    """(B, N, C) -> (B, C, N)."""
    return first(x).transpose(1, 2)


@dataclass(frozen=True)
class Tap:
    """Where an intermediate result of a case is found in our network.

    Args:
        module: Name of our module.
        view: Brings what the module returns into the published layout.
        of_input: Look at what the module is given, not at what it returns.
    """

    module: str
    view: Callable[[Any], Tensor] = first
    of_input: bool = False


@contextmanager
def tapped(model: nn.Module, taps: Mapping[str, Tap]) -> Iterator[dict[str, Summary]]:
    """Summaries of what the modules of a table compute, under the names of the case."""
    seen: dict[str, Summary] = {}

    def hook(key: str, tap: Tap) -> Callable:
        def store(module: nn.Module, args: tuple, output: Any) -> None:
            seen[key] = summarize(tap.view(args if tap.of_input else output))

        return store

    handles = [
        model.get_submodule(tap.module).register_forward_hook(hook(key, tap))
        for key, tap in taps.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def compare_middle(
    what: str,
    ours: Mapping[str, Summary],
    theirs: Mapping[str, Summary],
    tolerance: float | Mapping[str, float],
    absent: Mapping[str, str] | None = None,
) -> Iterator[Comparison]:
    """Compares all intermediate results of a case.

    Args:
        what: Name of the run.
        ours: Our summaries.
        theirs: Those of the case.
        tolerance: For all, or by name with that of the others under ``''``.
        absent: Name -> why our network does not compute it.
    """
    for name, summary in theirs.items():
        if name in (absent or {}):
            continue
        if name not in ours:
            yield Comparison(f'{what} {name} is not computed', float('inf'), 0)
            continue
        allowed = tolerance
        if isinstance(tolerance, Mapping):
            allowed = tolerance[name] if name in tolerance else tolerance['']
        difference, statistic = summary_difference(ours[name], summary)
        yield Comparison(f'{what} {name} {statistic}', difference, allowed, middle=True)
