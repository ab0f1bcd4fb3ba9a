"""One place where files of weights are read, without running what they hold."""

from __future__ import annotations

import errno
import hashlib
import io
import mmap as memory_map
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier as wait_for_all
from mmengine.dist import get_local_rank, get_rank
from mmengine.logging import print_log
from torch import Tensor

from nemo_mmseg.compat import only_globals

from .endless_pickle import refuse_endless
from .faults import shown

# The end of a published file's name that is the beginning of its SHA-256; a date is none.
NAMED_HASH = re.compile(r'-(?=\d*[a-f])([0-9a-f]{8,64})\.pth$')
# Before 1.6: magic number, protocol, system, what was saved, and the keys of its storages.
LEGACY_PICKLES = 5
# Without those of eight bits, whose numbers need a scale that is kept elsewhere.
DTYPES = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
}
# Numbers of a tensor that repeats those that are stored. A hostile file's may be endless.
MAX_VIEW = 2**30
# Entries under which checkpoints keep state dicts; other entries are records of a training.
STATE_DICTS = {
    *('state_dict', 'ema_state_dict', 'model_state_dict', 'model', 'model_ema', 'ema', 'ema_model'),
    *('bert_model', 'net', 'network', 'module', 'backbone', 'encoder', 'student', 'teacher'),
    *('weights', 'params', 'params_ema', 'generator', 'single_model', 'text_encoder', 'visual'),
}
# What wrappers (distributed, compiled) put before names, or between their parts.
WRAPPERS = re.compile(
    r'^(?:(?:module|_orig_mod|_fsdp_wrapped_module)\.)+|(?<=\.)(?:_orig_mod|_fsdp_wrapped_module)\.'
)
# The end of a name whose tensor is added to logits, and is -inf where nothing is looked at.
MASKS = re.compile(r'(?:mask|masks|masked_bias|causal_bias)$')
ALLOWED = 'dense finite tensors of floats, integers or bools'
DAMAGED = 'it is damaged or cut short'
REFUSED = re.compile(r'[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) (\w[\w.]*)')


def read_checkpoint(path: str | os.PathLike, allow: Iterable = (), mmap: bool = False) -> Any:
    """Read a file that ``torch.save`` wrote, onto the CPU.

    Only tensors and plain containers are unpickled, and what is allowed here. The checksums in the
    file are compared, where its format has them (PyTorch's since 1.6), and its state dicts are
    checked by :func:`check_tensors`. Together that takes 0.4 s a GB. The pickle is looked through
    first (:mod:`nemo_mmseg.utils.endless_pickle`), which takes 0.05 s for 1,000 tensors.

    Args:
        path: Local file, or http(s) address; what is downloaded stays in PyTorch's hub folder,
            unless it is damaged.
        allow: Further classes and functions that the file may hold, as
            ``torch.serialization.add_safe_globals`` takes them. What the process allows elsewhere
            does not count.
        mmap: Leave the tensors in the file, where its format (PyTorch's since 1.6) can do so: only
            those of state dicts are looked at.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be downloaded or opened.
        ValueError: The file is damaged or holds other things, or a state dict in it is no good.
    """
    remote = urlparse(str(path)).scheme in ('http', 'https')
    file = download(str(path)) if remote else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}')
    protocol = 0
    try:
        with only_globals(allow):
            zipped = zipfile.is_zipfile(file)
            if zipped:
                compare_checksums(file)
            protocol = _look_through(file, zipped)
            lazily = mmap and zipped
            content = torch.load(file, map_location='cpu', weights_only=True, mmap=lazily)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes PyTorch's readers raise whatever they meet,
        # also the system's error of a place that is not in the file
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = _reason(error)
        if reason.startswith(DAMAGED) and 2 < protocol <= pickle.HIGHEST_PROTOCOL:
            reason = (
                f"it was written with pickle protocol {protocol}, which PyTorch's safe reader does "
                'not read; save it again with torch.save(..., pickle_protocol=2), the default'
            )
        if remote and reason.startswith(DAMAGED):
            file.unlink(missing_ok=True)
        raise ValueError(f'{path} cannot be read as a checkpoint: {reason}') from error
    for state in _state_dicts(content):
        check_tensors(path, state)
    return content


def _look_through(file: Path, zipped: bool) -> int:
    """Refuse pickles that PyTorch must not read; return their highest protocol."""
    if zipped:
        # PyTorch's own reader, so that what is looked at is what is loaded
        content = torch._C.PyTorchFileReader(str(file)).get_record('data.pkl')
        return refuse_endless(io.BytesIO(content))
    with (
        open(file, 'rb') as opened,
        memory_map.mmap(opened.fileno(), 0, access=memory_map.ACCESS_READ) as content,
    ):
        return max([refuse_endless(content) for _ in range(LEGACY_PICKLES)])


def compare_checksums(file: str | os.PathLike) -> None:
    """Compare the CRC-32 of each uncompressed entry of an archive; PyTorch's readers do not.

    No two entries may have one name: readers differ in which they take.

    Args:
        file: Archive that PyTorch wrote. Without checksums
            (``torch.serialization.set_crc32_options(False)``) it is passed over, with a remark.

    Raises:
        ValueError: One differs, two have one name, or the file is no such archive.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    names = Counter(entry.filename for entry in entries)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f'it has two entries of the name {quoted(twice[0])}')
    # TorchScript compresses its code, which is small; the weights are as they are.
    stored = [entry for entry in entries if entry.compress_type == zipfile.ZIP_STORED]
    if sum(entry.file_size for entry in stored) > os.path.getsize(file):
        raise ValueError('its entries are larger than the file')
    if not any(entry.CRC for entry in entries):
        print_log(
            f'{file} was written without checksums (torch.serialization.set_crc32_options(False)): '
            'damage in it is not noticed',
            'current',
        )
        return
    with (
        open(file, 'rb') as opened,
        memory_map.mmap(opened.fileno(), 0, access=memory_map.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        for entry in stored:
            # As in the file: zipfile would copy what it reads, at a fifth of the speed.
            lengths = struct.unpack_from('<HH', content, entry.header_offset + 26)
            begin = entry.header_offset + 30 + sum(lengths)
            if zlib.crc32(view[begin : begin + entry.file_size]) != entry.CRC:
                raise ValueError(f'the checksum of {entry.filename} differs')


def _state_dicts(content: Any) -> Iterator[Mapping]:
    """What in a checkpoint is a state dict: entries that are named like one, else all of it.

    Tensors elsewhere are records, e.g. a best loss, which is inf before there is one.
    """
    pending = [content]
    while pending:
        found = pending.pop()
        if isinstance(found, Mapping):
            inner = [found[name] for name in STATE_DICTS & set(found)]
            inner = [entry for entry in inner if isinstance(entry, Mapping)]
            pending += inner
            if not inner:
                yield found


def check_optimizer(source: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose optimizer has tensors like :func:`check_tensors` refuses.

    Args:
        source: Where it is from, for the message.
        content: What :func:`read_checkpoint` returned.

    Raises:
        ValueError: Names the source and the tensor.
    """
    pending = [('optimizer', content.get('optimizer'))]
    while pending:
        path, value = pending.pop()
        if isinstance(value, Tensor):
            if found := _fault_of(value, path):
                raise ValueError(f'{source}: the tensor {path} {found}; allowed: {ALLOWED}')
        elif isinstance(value, Mapping | list | tuple):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            pending += [(f'{path}.{key}'[:200], item) for key, item in items]


def check_tensors(
    source: str | os.PathLike,
    state_dict: Mapping[str, Any],
    rename: Callable[[str], str] = lambda name: name,
) -> None:
    """Refuse weights that are not finite or not real numbers, and names that mean the same tensor.

    Integers are as they are. A mask that is added to logits holds -inf by right: a tensor whose
    name ends in ``mask``, ``masks``, ``masked_bias`` or ``causal_bias``.

    Args:
        source: Where it is from, for the message.
        state_dict: Tensors by name; anything else in it is passed over.
        rename: Returns what a name, without prefixes of wrappers, means to who loads them.

    Raises:
        ValueError: Names the source and the tensor.
    """
    names: dict[str, str] = {}
    for name, tensor in state_dict.items():
        text = name if isinstance(name, str) else shown(name)
        other = names.setdefault(rename(WRAPPERS.sub('', text)), text)
        if other != text:
            raise ValueError(
                f'{source} names one tensor twice, as {quoted(other)} and {quoted(text)}'
            )
        if isinstance(tensor, Tensor) and (found := _fault_of(tensor, text)):
            raise ValueError(f'{source}: the tensor {quoted(text)} {found}; allowed: {ALLOWED}')


def quoted(name: Any) -> str:
    """Return the name of a tensor for a message, whatever its length."""
    return shown(name).removeprefix('the text ')


def _fault_of(tensor: Tensor, name: str) -> str | None:
    """Say why a tensor is not allowed."""
    if tensor.is_meta:
        return 'is of the meta device, without numbers'
    if tensor.layout != torch.strided or tensor.dtype not in DTYPES:
        return f'is of {tensor.dtype}, {tensor.layout}'
    if tensor.numel() > max(_stored(tensor), MAX_VIEW):
        return f'shows {_stored(tensor)} numbers as {tensor.numel()}'
    if tensor.is_floating_point() and not _is_finite(tensor):
        if MASKS.search(name) and bool((tensor < torch.inf).all()):
            return None
        return 'has values that are not finite (NaN or inf)'
    return None


def state_dict_of(source: str | os.PathLike, content: Any) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint: its entry ``state_dict``, or itself.

    Args:
        source: Where it is from, for the message.
        content: What :func:`read_checkpoint` returned.

    Raises:
        ValueError: It holds no tensors by name, or something beside them.
    """
    state = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f'{source} holds no state dict')
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            entry = f'the entry {quoted(name)}, a {type(tensor).__name__}'
            raise ValueError(f'{source} holds no state dict of tensors by name, but {entry}')
    return dict(state)


def _stored(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _is_finite(tensor: Tensor) -> bool:
    if tensor.numel() > _stored(tensor):  # a view that repeats its numbers
        tensor = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    # Ten times as fast as looking at each number. What overflows is looked at.
    total = tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())


def _reason(error: Exception) -> str:
    """Say what was wrong, in one line, without PyTorch's advice to read the file unsafely."""
    # PyTorch wraps the advice around what its reader raised
    inner = error.__context__
    text = str(inner if isinstance(inner, pickle.UnpicklingError) else error)
    refused = REFUSED.search(text)
    if not refused:
        lines = text.strip().splitlines()
        return f'{DAMAGED} ({lines[0][:200] if lines else type(error).__name__})'
    return f'it holds {refused[1][:200]}, which is no tensor or plain container'


def download(url: str) -> Path:
    """Fetch a file once per machine into PyTorch's hub folder; other processes wait.

    A name that ends in ``-<beginning of the SHA-256>.pth`` is kept and the file is checked against
    it; others are told apart by their whole address, unless a file of the plain name lies there
    already.

    Args:
        url: http(s) address.

    Returns:
        Where the file lies. It is never there half-written.

    Raises:
        OSError: It cannot be fetched or does not have the hash in its name.
    """
    name = Path(urlparse(url).path).name
    named = NAMED_HASH.search(name)
    if not named:
        stem, suffix = os.path.splitext(name)
        name = f'{stem}_{hashlib.sha256(url.encode()).hexdigest()[:12]}{suffix}'
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    target, prepared = folder / name, folder / Path(urlparse(url).path).name
    if not target.exists() and prepared.is_file():
        # laid there by somebody for machines without a network, or by PyTorch's own loader
        return prepared
    if get_local_rank() == 0 and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                url, str(target), named and named[1], progress=get_rank() == 0
            )
        except (OSError, RuntimeError, HTTPException) as error:
            raise OSError(f'{url} cannot be downloaded: {error}') from error
    wait_for_all()
    return target
