"""Checkpoints and Swin's weights: mutated, they fill a network with the same numbers, or not."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .judge import Case, Kind
from .mutate import odd_value, other_bytes

SWIN = dict(embed_dims=8, depths=(1, 1), num_heads=(1, 2), window_size=2, strides=(4, 2),
            out_indices=(0, 1))  # fmt: skip


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


def fill(path: Path, network: Callable[[], nn.Module] = _network) -> dict[str, Tensor]:
    """Fill a network from a file; returns its tensors."""
    from nemo_mmseg.apis.inference import fill_model

    model = network()
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
        if not isinstance(value, Tensor) or value.shape != wanted[name].shape:
            return f'{name} is no tensor, or of another shape'
        plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
        if not plain or value.is_complex() or not value.double().isfinite().all():
            return f'{name} is complex, sparse, quantized, nowhere or not finite'
        result[name] = value.to(wanted[name].dtype)
    return result


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


@cache
def _swin() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return Swin's weights by their published names, and what they fill."""
    from mmseg.models.backbones import SwinTransformer

    from nemo_mmseg.models.converters import swin
    from nemo_mmseg.models.converters.rename import inverse, translate

    torch.manual_seed(2)
    ours = SwinTransformer(**SWIN).state_dict()
    ours = {name: value for name, value in ours.items() if 'relative_position_index' not in name}
    back = inverse(swin.TABLE)
    published = {
        translate(back, name): value for name, value in ours.items() if translate(back, name)
    }
    return published, {name: value for name, value in ours.items() if translate(back, name)}


def _fill_swin(path: Path) -> dict[str, Tensor]:
    from mmseg.models.backbones import SwinTransformer

    from nemo_mmseg.models.utils.swin_weights import load_swin_weights

    model = SwinTransformer(**SWIN)
    load_swin_weights(model, path)
    return model.state_dict()


def _of_swin(folder: Path, rng: random.Random, seed: int) -> Case:
    published, _ = _swin()
    path, sound = folder / 'swin.pth', folder / 'sound.pth'
    sound.write_bytes(save(dict(model=published), False))
    wanted = _fill_swin(sound)
    tensors: dict = dict(published)
    if rng.random() < 0.5:
        content, what = other_bytes(sound.read_bytes(), rng, (save(published, True),))
    else:
        name = rng.choice(list(tensors))
        tensors[name], what = odd_tensor(tensors[name], rng), f'value {name}'
        try:
            content = save(dict(model=tensors), False)
        except Exception:
            content = sound.read_bytes()
    path.write_bytes(content)

    def wrong(found: dict[str, Tensor]) -> str | None:
        different = [
            n for n in wanted if not torch.equal(found[n], wanted[n]) and 'norm' not in n[:4]
        ]
        if not different:
            return None
        if content[:2] == b'PK' and not intact(content):
            return 'read, but its checksums are wrong'
        bad = [n for n in different if not found[n].isfinite().all()]
        if bad:
            return f'read, but {bad[0]} is not finite'
        read = torch.load(io.BytesIO(content), weights_only=True)
        tensors = read.get('model', read)
        odd = [
            n for n, v in tensors.items() if isinstance(v, Tensor) and (v.is_complex() or v.is_meta)
        ]
        return f'read, but {odd[0]} is complex or nowhere' if odd else None

    return Case(what, partial(_fill_swin, path), wrong, (str(path),))


KINDS = [
    Kind('checkpoint-zip', 70, partial(_bytes, legacy=False), lambda: state()),
    Kind('checkpoint-legacy', 50, partial(_bytes, legacy=True), lambda: state()),
    Kind('checkpoint-content', 70, _content, lambda: state()),
    Kind('swin-weights', 50, _of_swin, lambda: _swin()),
]
