"""A tile store that a config asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from nemo_mmseg.datasets.wrappers import data_sets_of, transforms_in
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankError, NegativeBank
from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.negatives.tile_store import TileSettings, TileStore

from .made_with import check_bank
from .mine import mine_bank


@dataclass(frozen=True)
class WantedStore:
    """Where a store lies and how it is made.

    Attributes:
        path: The file.
        pool: Its images.
        settings: Its tiles.
    """

    path: str
    pool: ImagePool
    settings: TileSettings

    def make(self, **options: Any) -> TileStore:
        """Make the store if it is missing, check it if it is there; see :func:`make_tile_store`."""
        from .tile_writer import make_tile_store

        return make_tile_store(self.pool, self.path, self.settings, **options)

    def check_if_there(self) -> None:
        """Refuse a store of other images or settings; see :meth:`TileStore.check`."""
        if Path(self.path).is_file():
            TileStore(self.path).check(self.pool, self.settings)


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


def wanted_stores(dataset: Any) -> list[WantedStore]:
    """Find the tile stores that the mosaics of a data set read.

    Args:
        dataset: A data set, or wrappers around some, with pipelines in which mosaics may stand
            inside other transforms.

    Returns:
        One entry a file.

    Raises:
        ValueError: Mosaics ask for different stores in the same file.
    """
    stores: dict[str, WantedStore] = {}
    for inner, pipelines in data_sets_of(dataset):
        for transform in transforms_in(pipelines):
            for store in transform.stores(inner.pool) if hasattr(transform, 'stores') else ():
                other = stores.setdefault(store.path, store)
                same_images = other.pool.images_fingerprint == store.pool.images_fingerprint
                if other.settings != store.settings or not same_images:
                    raise ValueError(
                        f'two mosaics ask for different tile stores in the same file {store.path}: '
                        'each needs a store=dict(path=...) of its own'
                    )
    return list(stores.values())
