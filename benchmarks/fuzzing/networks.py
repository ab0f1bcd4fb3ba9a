"""Published weights: Swin's, those that converters read, and CLIP's."""

from __future__ import annotations

import io
import json
import random
import runpy
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from .judge import Case, Kind
from .mutate import other_bytes
from .weights import intact, odd_tensor, plain, save

SWIN = dict(embed_dims=8, depths=(1, 1), num_heads=(1, 2), window_size=2, strides=(4, 2),
            out_indices=(0, 1))  # fmt: skip
LAVT = Path(__file__).resolve().parents[2] / 'tests' / 'test_models' / 'published_lavt.py'
CLIP = 'Fuzz-CLIP'
CLIP_CONFIG = dict(
    embed_dim=8,
    vision_cfg=dict(image_size=16, layers=1, width=16, patch_size=8, head_width=8),
    text_cfg=dict(context_length=9, vocab_size=50, width=16, heads=2, layers=1),
)


def changed(content: dict, of: tuple[str, ...], rng: random.Random) -> tuple[bytes, str]:
    """Change the bytes of a checkpoint, or one tensor of a state dict in it.

    Args:
        content: What is saved.
        of: Keys on the way to the state dict.
        rng: The mutation's generator.
    """
    if rng.random() < 0.5:
        whole = save(content, rng.random() < 0.3)
        return other_bytes(whole, rng, (save(content, True), b''))
    outer = content = dict(content)
    for key in of:
        outer[key] = outer = dict(outer[key])
    name = rng.choice(list(outer))
    outer[name] = odd_tensor(outer[name], rng)
    try:
        return save(content, rng.random() < 0.3), f'value {name}'
    except Exception:  # PyTorch's own limits
        return b'', 'empty'


def compare(found: dict[str, Tensor], wanted: dict[str, Tensor], content: bytes) -> str | None:
    """Say what is wrong with tensors that were read from changed weights.

    Where a file has no checksums, others may have been read if they are plain and finite.
    """
    if found.keys() != wanted.keys():
        return 'other names'
    different = []
    for name, tensor in wanted.items():
        one = found[name]
        if not plain(one):
            return f'read, but {name} is complex, sparse, quantized, nowhere or not finite'
        if one.shape != tensor.shape:
            return f'{name} has another shape'
        if not torch.equal(one.double(), tensor.double()):
            different.append(name)
    if different and content[:2] == b'PK' and not intact(content):
        return 'read, but its checksums are wrong'
    tensors = _tensors(torch.load(io.BytesIO(content), weights_only=True)) if different else ()
    odd = [one for one in tensors if one.is_complex() or one.is_meta or one.is_quantized]
    return f'read, but a tensor is {odd[0].dtype} on {odd[0].device}' if odd else None


def _tensors(content: object) -> list[Tensor]:
    if isinstance(content, Tensor):
        return [content]
    values = content.values() if isinstance(content, dict) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def _case(
    folder: Path, content: bytes, what: str, use: Callable, wanted: dict[str, Tensor]
) -> Case:
    path = folder / 'weights.pth'
    path.write_bytes(content)
    return Case(
        what, partial(use, path), partial(compare, wanted=wanted, content=content), (str(path),)
    )


@cache
def _swin() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return Swin's weights by their published names, and what they fill."""
    from mmseg.models.backbones import SwinTransformer

    from nemo_mmseg.models.converters import swin
    from nemo_mmseg.models.converters.rename import inverse, translate

    torch.manual_seed(2)
    ours, back = SwinTransformer(**SWIN).state_dict(), inverse(swin.TABLE)
    names = {name: translate(back, name) for name in ours}
    published = {old: ours[name] for name, old in names.items() if old and 'index' not in name}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'swin.pth')
        path.write_bytes(save(dict(model=published), False))
        return published, _fill_swin(path)


def _fill_swin(path: Path) -> dict[str, Tensor]:
    from mmseg.models.backbones import SwinTransformer

    from nemo_mmseg.models.utils.swin_weights import load_swin_weights

    torch.manual_seed(3)
    model = SwinTransformer(**SWIN)
    load_swin_weights(model, path)
    return model.state_dict()


def _of_swin(folder: Path, rng: random.Random, seed: int) -> Case:
    published, wanted = _swin()
    content, what = changed(dict(model=published), ('model',), rng)
    return _case(folder, content, what, _fill_swin, wanted)


@cache
def _lavt() -> tuple[dict, dict, dict[str, Tensor]]:
    """Return a published LAVT of a tiny size, the config of ours, and its tensors."""
    from nemo_mmseg.models.converters.convert import convert_checkpoint

    names = runpy.run_path(str(LAVT))
    torch.manual_seed(4)
    published, model = names['published_lavt'](), names['our_model']()
    return published, model, convert_checkpoint('lavt', published, model).state_dict


def _convert(path: Path) -> dict[str, Tensor]:
    from nemo_mmseg.models.converters.convert import convert_file

    target = path.parent / 'made' / 'converted.pth'
    convert_file('lavt', path, target, _lavt()[1])
    return torch.load(target, weights_only=True)['state_dict']


def _of_lavt(folder: Path, rng: random.Random, seed: int) -> Case:
    published, _, wanted = _lavt()
    content, what = changed(published, (rng.choice(('model', 'bert_model')),), rng)
    return _case(folder, content, what, _convert, wanted)


@cache
def _clip() -> dict[str, Tensor]:
    """Return the weights of a tiny CLIP, which open_clip knows from here on."""
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f'{CLIP}.json')
        path.write_text(json.dumps(CLIP_CONFIG))
        open_clip.add_model_config(path)
    torch.manual_seed(5)
    return open_clip.create_model(CLIP).state_dict()


def _fill_clip(path: Path) -> dict[str, Tensor]:
    from nemo_mmseg.utils.clip import load_clip

    try:
        return load_clip(CLIP, str(path)).state_dict()
    except RuntimeError as error:  # what load_clip documents
        raise ValueError(str(error)) from error


def _of_clip(folder: Path, rng: random.Random, seed: int) -> Case:
    weights = _clip()
    content, what = changed(dict(state_dict=weights), ('state_dict',), rng)
    return _case(folder, content, what, _fill_clip, weights)


KINDS = [
    Kind('swin-weights', 50, _of_swin, lambda: _swin()),
    Kind('converter-input', 25, _of_lavt, lambda: _lavt()),
    Kind('clip-weights', 40, _of_clip, lambda: _clip()),
]
