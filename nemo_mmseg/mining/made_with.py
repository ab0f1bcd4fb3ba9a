"""What a bank is made with, and whether a bank that is there was made with what is asked for."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log

from nemo_mmseg.negatives.bank import BankError, NegativeBank
from nemo_mmseg.negatives.pool import bank_fingerprint, folder_pool
from nemo_mmseg.utils.user_cache import user_cache

from .vectors import EmbeddingCache


def check_bank(
    dataset: Any,
    path: str | Path,
    model: str,
    pretrained: str | None,
    keep: int,
    images: str | None = None,
    index: str | None = None,
) -> NegativeBank:
    """The bank at ``path``, if it is that of the data set and was made with the settings.

    Args:
        dataset: See :func:`nemo_mmseg.mining.mine_bank`.
        path: The bank.
        model: The miner it must be of.
        pretrained: Its weights.
        keep: Images that were to be stored an expression.
        images: Folder of its negatives; None where they are the data set's own images.
        index: The faiss index it was to be searched with; None for exact search.

    Raises:
        FileNotFoundError: There is no bank.
        BankError: It is damaged, or was made for other data or with other settings.
    """
    bank, wanted = NegativeBank(path), asked_for(dataset, model, pretrained, keep, images, index)
    name = f'{wanted["dataset"]!r}, split {wanted["split"]!r}'
    bank.check(wanted['fingerprint'], name + (f', with the images of {images}' if images else ''))
    made = bank.metadata
    for key in ('model', 'pretrained', 'weights_sha256', 'keep', 'index'):
        # A digest of weights is not always known, and an exact search has no index.
        known = key in wanted or key == 'index'
        if known and made.get(key) != wanted.get(key):
            raise BankError(
                f'the bank {path} was made with {key}={made.get(key)!r}, this run asks for '
                f'{wanted.get(key)!r}. Delete it, or name another path'
            )
    return bank


def asked_for(
    dataset: Any,
    model: str,
    pretrained: str | None,
    keep: int,
    images: str | None,
    index: str | None,
) -> dict[str, Any]:
    """What a bank's metadata must say, as far as it is known without loading the network.

    Args:
        dataset: See :func:`nemo_mmseg.mining.mine_bank`, as the others.
        model: The miner.
        pretrained: Its weights.
        keep: Images stored an expression.
        images: Folder of the negatives.
        index: The faiss index.
    """
    from nemo_mmseg.utils.clip import SHIPPED

    wanted: dict[str, Any] = dict(
        dataset=str(dataset.metainfo.get('dataset_name')),
        split=str(getattr(dataset, 'split', None)),
        fingerprint=bank_fingerprint(dataset, images),
        model=model,
        # Of a file the name alone: where it lies says nothing, its content is compared.
        pretrained=pretrained and Path(pretrained).name,
        keep=int(keep),
    )
    if images is not None:
        wanted.update(images=Path(images).name, candidates=len(folder_pool(images)))
    if index is not None:
        wanted['index'] = index
    shipped = SHIPPED.get(model)
    file = Path(pretrained or '')
    if shipped and pretrained == shipped['tag']:
        file = shipped['folder'] / 'weights.safetensors'
    if file.is_file():
        digest = hashlib.sha256()
        with open(file, 'rb') as content:
            while part := content.read(2**20):
                digest.update(part)
        wanted['weights_sha256'] = digest.hexdigest()
    return wanted


def digest_of_weights(clip: torch.nn.Module) -> str:
    """Digest of a model's tensors, for weights whose file is known to open_clip alone."""
    digest = hashlib.sha256()
    for name, tensor in sorted(clip.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def open_cache(
    cache: bool | str, made: dict[str, Any], tower: dict[str, Any], device: str
) -> EmbeddingCache | None:
    """The vectors that are known of the tower of a bank; None for no cache.

    Machines of other kinds compute other last bits: where they share a folder, each has its own.
    """
    folder = user_cache('embeddings') if cache is True else cache
    if not folder:
        return None
    on_gpu = torch.device(device).type == 'cuda'
    what = {key: made[key] for key in ('model', 'weights_sha256', 'versions')} | tower
    what |= dict(
        torchvision=version('torchvision'),
        machine=torch.cuda.get_device_name(device) if on_gpu else _cpu(),
    )
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    try:
        return EmbeddingCache(folder, digest)
    except OSError as error:
        print_log(f'embeddings are not cached: {error}', 'current')
        return None


def _cpu() -> str:
    """Model of the CPU and the instructions that torch uses of it."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    models = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    model = models[0] if models else platform.processor()
    return f'{model} {torch.backends.cpu.get_cpu_capability()}'
