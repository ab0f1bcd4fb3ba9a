"""Which banks a training data set asks for, and whether they give its mosaics anything to draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.logging import print_log

from ..datasets.nested_transforms import transforms_in
from .band import BandRule
from .bank import BankError, NegativeBank
from .made_with import check_bank
from .mine import mine_bank


@dataclass
class WantedBank:
    """A mosaic and the data set whose bank it reads.

    Attributes:
        dataset: The (innermost) data set.
        mosaic: The transform, with ``bank=dict(path, model, pretrained, keep, images, index)``.
    """

    dataset: Any
    mosaic: Any

    @property
    def path(self) -> str:
        """Where the bank lies."""
        return self.mosaic.bank['path']

    def settings(self) -> dict[str, Any]:
        """Model, weights, number of images, folder and index of the bank.

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
            model=bank['model'],
            pretrained=bank.get('pretrained'),
            keep=bank.get('keep', 1000),
            images=bank.get('images'),
            index=bank.get('index'),
        )

    def mine(self, **options: Any) -> NegativeBank:
        """Mine the bank if it is missing, check it if it is there; see :func:`mine_bank`."""
        self.mosaic.check_pool(self.dataset)  # before hours are spent on it
        return mine_bank(self.dataset, self.path, **self.settings(), **options)

    def check(self) -> NegativeBank:
        """Check that the bank is there and belongs to the data set, without mining."""
        self.mosaic.check_pool(self.dataset)
        return check_bank(self.dataset, self.path, **self.settings())


def wanted_banks(dataset: Any) -> list[WantedBank]:
    """Find the mosaics of a data set that read a bank.

    Args:
        dataset: A data set, or wrappers around some (``ConcatDataset``, ``RepeatDataset``, ...),
            with pipelines in which mosaics may stand inside other transforms.

    Returns:
        One entry a mosaic and data set.

    Raises:
        ValueError: Different data sets name the same file.
    """
    banks = [
        WantedBank(inner, mosaic)
        for inner, pipeline in data_sets_of(dataset)
        for mosaic in filter(_reads_bank, transforms_in(pipeline))
    ]
    users: dict[str, tuple] = {}
    for wanted in banks:
        user = wanted.dataset.fingerprint, wanted.mosaic.bank.get('images')
        if users.setdefault(wanted.path, user) != user:
            raise ValueError(
                f'two data sets, or two folders of negatives, name the same bank {wanted.path}: '
                'each needs a bank=dict(path=...) of its own'
            )
    return banks


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


def _reads_bank(transform: Any) -> bool:
    bank = getattr(transform, 'bank', None)
    return isinstance(bank, dict) and 'path' in bank and getattr(transform, 'mines', True)


def check_passes(dataset: Any, passes: int) -> None:
    """Let transforms that change from pass to pass look whether a training is long enough.

    Args:
        dataset: A data set or wrappers around some.
        passes: Passes over the data that the training makes.

    Raises:
        ValueError: It is not.
    """
    for _, pipelines in data_sets_of(dataset):
        for transform in transforms_in(pipelines):
            if hasattr(transform, 'check_passes'):
                transform.check_passes(passes)


def check_band(wanted: WantedBank, bank: NegativeBank) -> list[np.ndarray]:
    """Look whether the bands leave negatives, and log how many expressions have too few.

    Args:
        wanted: The mosaic, with ``band_rules()`` (several where difficulty changes from pass to
            pass), ``layout.most_cells`` and ``leak_guard``.
        bank: Its bank.

    Returns:
        For each rule the number (E,) of images in the band of every expression, without those that
        the leak guard drops.

    Raises:
        BankError: The band of a rule is empty for every expression.
    """
    return [_check_rule(wanted, bank, rule) for rule in wanted.mosaic.band_rules()]


def held_out_images(wanted: WantedBank, bank: NegativeBank) -> np.ndarray | None:
    """Which images (I,) bool of a bank the mosaic's leak guard drops; None without a guard."""
    guard = getattr(wanted.mosaic, 'leak_guard', None)
    return None if guard is None else guard.leaked_rows(bank)


def _check_rule(wanted: WantedBank, bank: NegativeBank, rule: BandRule) -> np.ndarray:
    without = held_out_images(wanted, bank)
    sizes = bank.band_sizes(*rule, without)
    if not sizes.any():
        by = str(rule) if without is None or not without.any() else f'{rule}, with the leak guard,'
        raise BankError(
            f'the band of every expression is empty: {by} drops all {bank.stored} stored images '
            f'in {bank.path}. Let it drop fewer, or mine with a larger keep'
        )
    needed = wanted.mosaic.layout.most_cells - 1
    message = f'{bank.path}: {rule}: '
    message += f'{(sizes < needed).sum()} of {len(sizes)} expressions have fewer than the {needed} '
    message += f'negatives of a mosaic, {(sizes == 0).sum()} have none'
    if bank.stored < bank.candidates - 1:
        short = (sizes < rule.top_k).sum()
        message += f'; {short} bands reach below the {bank.stored} stored images'
    print_log(message, 'current')
    return sizes
