"""Digests that tell whether a file or a network is the one that something was made with."""

from __future__ import annotations

import hashlib
import os

from torch import nn


def digest_of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits.

    Raises:
        FileNotFoundError: There is no such file.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def digest_of_weights(network: nn.Module) -> str:
    """Return the SHA-256 of a network's state dict, names and values, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
