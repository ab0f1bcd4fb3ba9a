"""Checkpoints: mutated, they fill a network with the numbers that they mean, or are refused."""

from __future__ import annotations

import io
import random
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .judge import Case, Kind
from .mutate import odd_value, other_bytes


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5))


@cache
def state() -> dict[str, Tensor]:
    """Return the tensors that the files hold."""
    torch.manual_seed(0)
    return {name: value.clone() for name, value in _network().state_dict().items()}


def save(content: Any, legacy: bool) -> bytes:
    """Return a checkpoint of PyTorch's present format, or of the one before 1.6."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def fill(path: Path) -> dict[str, Tensor]:
    """Fill a network from a file; returns its tensors."""
    from nemo_mmseg.apis.inference import fill_model

    model = _network()
    fill_model(model, path)
    return model.state_dict()


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str | None:
    """Compare tensors bit by bit."""
    for name, tensor in wanted.items():
        if not torch.equal(found[name], tensor):
            return f'{name} has other numbers'
    return None


def intact(content: bytes) -> bool:
    """Tell whether a zip file's entries have their checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except Exception:  # whatever a damaged archive raises
        return False


def meant(content: bytes) -> dict[str, Tensor] | str:
    """Return the tensors that a changed file means, read anew; in words why there are none."""
    if content[:2] == b'PK' and not intact(content):
        return 'its checksums are wrong'
    try:
        read = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    except Exception as error:
        return f'PyTorch refuses it: {str(error)[:80]}'
    return expected(read, state())


def expected(read: Any, wanted: dict[str, Tensor]) -> dict[str, Tensor] | str:
    """Return what a network must hold that is filled with this, in words why it must not be."""
    found = read.get('state_dict', read) if isinstance(read, dict) else None
    if not isinstance(found, dict):
        return 'no state dict'
    names = [str(name).removeprefix('module.') for name in found]
    counters = {name for name in wanted if name.endswith('num_batches_tracked')}  # of old: none
    if len(set(names)) < len(names) or not set(wanted) - counters <= set(names) <= set(wanted):
        return 'other names'
    result = {name: wanted[name] for name in counters}
    for name, value in zip(names, found.values()):
        if isinstance(value, Tensor) and value.shape == (1,) and not wanted[name].ndim:
            value = value[0]  # as PyTorch before 0.4 saved numbers
        if not isinstance(value, Tensor) or value.shape != wanted[name].shape:
            return f'{name} is no tensor, or of another shape'
        if not plain(value):
            return f'{name} is complex, sparse, quantized, nowhere or not finite'
        result[name] = value.to(wanted[name].dtype)
    return result


def plain(tensor: Tensor) -> bool:
    """Tell whether a tensor holds real finite numbers, one after the other."""
    odd = tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta
    return not odd and not tensor.is_complex() and bool(tensor.double().isfinite().all())


def _case(path: Path, content: bytes, what: str, exact: bool = False) -> Case:
    path.write_bytes(content)

    def wrong(found: dict[str, Tensor]) -> str | None:
        if same(found, state()) is None:
            return None
        wanted = meant(content)
        return f'read, but {wanted}' if isinstance(wanted, str) else same(found, wanted)

    return Case(what, partial(fill, path), wrong, (str(path),), sound=lambda: exact)


def _bytes(folder: Path, rng: random.Random, seed: int, legacy: bool) -> Case:
    whole = dict(
        state_dict=state(), meta=dict(epoch=3, iter=100, cfg='a = 1'), optimizer=dict(lr=0.1)
    )
    content, what = other_bytes(save(whole, legacy), rng, (save(state(), not legacy), b''))
    return _case(folder / 'weights.pth', content, what)


def odd_tensor(tensor: Tensor, rng: random.Random) -> Any:
    """Draw what may stand in a state dict in a tensor's place."""
    one = tensor.clone().flatten().float()
    place = rng.randrange(max(1, one.numel()))

    def with_number(number: float) -> Tensor:
        changed = one.clone()
        if changed.numel():
            changed[place] = number
        return changed.reshape(tensor.shape)

    forms = (
        lambda: with_number(float('nan')), lambda: with_number(float('inf')),
        lambda: with_number(-float('inf')), lambda: tensor.to(torch.complex64),
        lambda: tensor.double(), lambda: tensor.half(), lambda: tensor.bfloat16(),
        lambda: tensor.to(torch.int64), lambda: tensor > 0, lambda: tensor.float().to_sparse(),
        lambda: tensor[None], lambda: tensor.flatten(), lambda: tensor.flatten()[:0], lambda: None,
        lambda: tensor.tolist(), lambda: nn.Parameter(tensor.float()), lambda: {'weight': tensor},
        lambda: torch.zeros(()),
        lambda: tensor.float().T if tensor.ndim == 2 else tensor.float()[None],
        lambda: torch.zeros(1).expand(10**6, 10**6), lambda: odd_value(rng, True), lambda: tensor,
        lambda: tensor.to(torch.float8_e4m3fn),
        lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        lambda: torch.empty(tensor.shape, device='meta'),
    )  # fmt: skip
    return rng.choice(forms)()


def _content(folder: Path, rng: random.Random, seed: int) -> Case:
    tensors: dict = dict(state())
    name = rng.choice(list(tensors))
    action = rng.choice(
        ('value', 'value', 'value', 'missing', 'more', 'module', 'twice', 'name', 'whole', 'entry')
    )
    whole: Any = dict(state_dict=tensors, meta=dict(epoch=3))
    if action == 'value':
        tensors[name] = odd_tensor(tensors[name], rng)
    elif action == 'missing':
        del tensors[name]
    elif action == 'more':
        tensors[rng.choice(('a.b', 5, '', None, 'x' * 3000))] = torch.zeros(3)
    elif action == 'module':
        whole['state_dict'] = tensors = {f'module.{key}': value for key, value in tensors.items()}
    elif action == 'twice':
        tensors[f'module.{name}'] = tensors[name] + 1
    elif action == 'name':
        tensors[rng.choice((f'{name}.', f'module.module.{name}', name.upper(), (name,)))] = (
            tensors.pop(name)
        )
    elif action == 'whole':
        whole = rng.choice(
            (
                tensors,
                odd_value(rng, True),
                [tensors],
                dict(state_dict=None),
                dict(state_dict=[tensors]),
                {},
            )
        )
    else:
        whole[rng.choice(('meta', 'optimizer', 5))] = rng.choice(
            (odd_value(rng, True), [1], torch.zeros(2))
        )
    try:
        content = save(whole, rng.random() < 0.3)
    except Exception as error:
        content, action = (
            save(tensors if action != 'value' else state(), False),
            f'{action} (cannot be saved: {error})',
        )
    about = f'{action} {name}'
    case = _case(folder / 'weights.pth', content, about)
    inner = case.wrong

    def wrong(found: dict[str, Tensor]) -> str | None:
        wanted = meant(content)
        return f'read, but {wanted}' if isinstance(wanted, str) else inner(found)

    case.wrong = wrong
    return case


KINDS = [
    Kind('checkpoint-zip', 70, partial(_bytes, legacy=False), lambda: state()),
    Kind('checkpoint-legacy', 50, partial(_bytes, legacy=True), lambda: state()),
    Kind('checkpoint-content', 70, _content, lambda: state()),
]
