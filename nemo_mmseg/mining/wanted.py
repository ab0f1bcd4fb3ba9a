"""Which banks a training data set asks for, and whether they give its mosaics anything to draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from mmengine.logging import print_log

from .bank import BankError, NegativeBank
from .mine import check_bank, mine_bank


@dataclass
class WantedBank:
    """A mosaic and the data set whose bank it reads.

    Attributes:
        dataset: The (innermost) data set.
        mosaic: The transform, with ``bank=dict(path, model, pretrained, keep)``.
    """

    dataset: Any
    mosaic: Any

    @property
    def path(self) -> str:
        """Where the bank lies."""
        return self.mosaic.bank['path']

    def settings(self) -> dict[str, Any]:
        """Model, weights and number of images of the bank.

        Raises:
            ValueError: The config does not say how to make the bank.
        """
        bank = self.mosaic.bank
        if 'model' not in bank:
            raise ValueError(
                f'the config does not say how to mine the bank {self.path}: write '
                'bank=dict(path=..., model=..., pretrained=..., keep=...)'
            )
        return dict(
            model=bank['model'], pretrained=bank.get('pretrained'), keep=bank.get('keep', 1000)
        )

    def mine(self, **options: Any) -> NegativeBank:
        """Mine the bank if it is missing, check it if it is there; see :func:`mine_bank`."""
        return mine_bank(self.dataset, self.path, **self.settings(), **options)

    def check(self) -> NegativeBank:
        """Check that the bank is there and belongs to the data set, without mining."""
        return check_bank(self.dataset, self.path, **self.settings())


def wanted_banks(dataset: Any) -> list[WantedBank]:
    """Find the mosaics of a data set that read a bank.

    Args:
        dataset: A data set, or wrappers around some (``ConcatDataset``, ``RepeatDataset``, ...),
            with pipelines in which mosaics may stand inside other transforms.

    Returns:
        One entry a mosaic and data set.
    """
    return [
        WantedBank(inner, mosaic)
        for inner, pipeline in data_sets_of(dataset)
        for mosaic in _mosaics(pipeline)
    ]


def data_sets_of(dataset: Any) -> Iterator[tuple[Any, list]]:
    """The innermost data sets, each with the pipelines its samples run through.

    Args:
        dataset: A data set or wrappers around some.

    Yields:
        A data set that wraps no other, and its pipelines, the inner one first.
    """
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    # Some wrappers (MMSegmentation's MultiImageMixDataset) have a pipeline of their own.
    pipeline = getattr(dataset, 'pipeline', None)
    if inner == [None]:
        yield dataset, [pipeline]
        return
    for child in inner:
        for data_set, pipelines in data_sets_of(child):
            yield data_set, [*pipelines, pipeline]


def _mosaics(transform: Any) -> Iterator[Any]:
    """The mosaics with a bank in a transform, a pipeline, or lists of them."""
    if isinstance(transform, (list, tuple)):
        for child in transform:
            yield from _mosaics(child)
        return
    if transform is None or isinstance(transform, (str, dict)):
        return
    bank = getattr(transform, 'bank', None)
    if isinstance(bank, dict) and 'path' in bank and getattr(transform, 'mined_prob', 1) > 0:
        yield transform
    for name in ('transforms', 'pipeline', 'plain'):
        yield from _mosaics(getattr(transform, name, None))


def check_band(wanted: WantedBank, bank: NegativeBank) -> np.ndarray:
    """Look whether tau and top_k leave negatives, and log how many expressions have too few.

    Args:
        wanted: The mosaic, with ``tau``, ``tau_mode``, ``top_k`` and ``grid``.
        bank: Its bank.

    Returns:
        Number (E,) of images in the band of every expression.

    Raises:
        BankError: The band is empty for every expression.
    """
    mosaic = wanted.mosaic
    tau, mode, top_k = mosaic.tau, mosaic.tau_mode, mosaic.top_k
    sizes = bank.band_sizes(tau, mode, top_k)
    if not sizes.any():
        raise BankError(
            f'the band of every expression is empty: all {bank.stored} stored images are above '
            f'tau={tau} ({mode}) in {bank.path}. Raise tau, or mine with a larger keep'
        )
    needed = prod(mosaic.grid) - 1
    message = f'{bank.path}: tau={tau} ({mode}), top_k={top_k}: '
    message += f'{(sizes < needed).sum()} of {len(sizes)} expressions have fewer than the {needed} '
    message += f'negatives of a mosaic, {(sizes == 0).sum()} have none'
    if bank.stored < len(bank.image_ids) - 1:
        message += f'; {(sizes < top_k).sum()} bands reach below the {bank.stored} stored images'
    print_log(message, 'current')
    return sizes
